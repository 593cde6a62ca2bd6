"""Measurements; one file per question, each prints one table. See README.md."""
