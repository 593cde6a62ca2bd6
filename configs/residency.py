"""What a model's `parameters` say about its place in memory, and about how many instances it may have."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from configs.instances import MAX_COUNT

PINNED, IDLE_TTL, MEMORY_BUDGET = "pinned", "idle_ttl", "memory_budget"
MIN_COUNT, MAX_COUNT_KEY = "min_count", "max_count"
_WORDS = {"true": True, "false": False}


@dataclass(frozen=True, slots=True)
class Residency:
    """How long a model stays in memory, and how many instances of each of its groups there may be.

    `idle_ttl` is seconds without a request after which it may go, 0: never, None: as the server says. `memory_budget`
    is the bytes that all its processes may take together (0: no limit of its own). Without a range (`max_count` 0)
    `count` is what the configuration says.
    """

    is_pinned: bool = False
    idle_ttl: float | None = None
    memory_budget: int = 0
    min_count: int = 1
    max_count: int = 0


def read(parameters: Mapping[str, str]) -> Residency:
    """What they say. Raises ValueError."""
    has_range = MIN_COUNT in parameters or MAX_COUNT_KEY in parameters
    low = _integer(parameters, MIN_COUNT, 1, MAX_COUNT)
    high = _integer(parameters, MAX_COUNT_KEY, max(low, 1), MAX_COUNT) if has_range else 0
    if has_range and high < max(low, 1):
        raise ValueError(
            f"'{MAX_COUNT_KEY}' is {high}, must be 1 or more and not less than '{MIN_COUNT}', which is {low}"
        )
    found = Residency(
        _boolean(parameters, PINNED), _seconds(parameters), _integer(parameters, MEMORY_BUDGET, 0, 2**63 - 1), low, high
    )
    if found.is_pinned and not found.min_count:
        raise ValueError(f"'{PINNED}' and '{MIN_COUNT}' 0 contradict each other")
    return found


def problems(form: Mapping[str, Any], parameters: Mapping[str, str]) -> Iterator[str]:
    """What is wrong with them in a normalised configuration."""
    try:
        has_range = read(parameters).max_count > 0
    except ValueError as error:
        yield str(error)
    else:
        if has_range and not form.get("instance_group"):
            yield f"'{MAX_COUNT_KEY}' is for models with instances, which an ensemble has not"


def _boolean(parameters: Mapping[str, str], key: str) -> bool:
    text = parameters.get(key, "false")
    if text.lower() not in _WORDS:
        raise ValueError(f"'{key}' is '{text}', must be true or false")
    return _WORDS[text.lower()]


def _seconds(parameters: Mapping[str, str]) -> float | None:
    if IDLE_TTL not in parameters:
        return None
    text = parameters[IDLE_TTL]
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ValueError(f"'{IDLE_TTL}' is '{text}', must be seconds, 0 for ever")
    return seconds


def _integer(parameters: Mapping[str, str], key: str, default: int, high: int) -> int:
    text = parameters.get(key, str(default))
    if not re.fullmatch("[0-9]{1,19}", text) or int(text) > high:
        raise ValueError(f"'{key}' is '{text}', must be an integer from 0 to {high}")
    return int(text)
