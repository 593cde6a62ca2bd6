"""`--rate-limit-resource=NAME:COUNT[:DEVICE]`: how much there is of what the rate limiter gives to executions."""

import re
from collections.abc import Iterable, Mapping
from typing import TypeAlias

Supply: TypeAlias = Mapping[tuple[str, int | None], int]
"""Count by name and device; device None: as much on every device."""

_FORMAT = "--rate-limit-resource option format is '<resource_name>:<count>:<device>' or '<resource_name>:<count>'. Got"


def parse(texts: Iterable[str]) -> dict[tuple[str, int | None], int]:
    """What the flags say; of several counts for the same the smallest holds, as in Triton. Raises ValueError."""
    supply: dict[tuple[str, int | None], int] = {}
    for text in texts:
        name, *numbers = text.split(":")
        if len(numbers) not in {1, 2}:
            raise ValueError(f"{_FORMAT} {text}")
        count, device = (*map(_number, numbers), -1)[:2]
        key = name, None if device < 0 else device
        supply[key] = min(count, supply.get(key, count))
    return supply


def _number(text: str) -> int:
    if not re.fullmatch("-?[0-9]{1,9}", text):
        raise ValueError(f"Invalid option value. Got {text}")
    return int(text)
