"""The metrics page for Prometheus."""
