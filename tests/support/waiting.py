"""Waiting for something to become true: look again and again until a deadline, never sleep and hope."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

LOOK_SECONDS = 0.02


def until(look: Callable[[], T], seconds: float, what: str) -> T:
    """The first true value of `look()`. Fails the test, naming `what`, after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"after {seconds:g} s still not: {what} (last seen: {value!r})")
        time.sleep(LOOK_SECONDS)
    return value
