"""Environments of Python models: found in the cache or made, then entered by the worker, before anything else."""

import sys


class EnvironmentFailed(Exception):
    """The environment cannot be had; the text says why, for whoever loads the model."""


def say(text: str) -> None:
    """A line for the server's log, which shows what its processes print."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
