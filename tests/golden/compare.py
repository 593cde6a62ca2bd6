"""Says in which aspects two answers differ."""

import json
import re
from collections.abc import Iterator
from typing import Any

from tests.golden.scenario import Answer

_NOTE = re.compile(
    r"(NOTE: Setting a non-zero max_batch_size in the model config requires a batch dimension).*", re.DOTALL
)
"""Advice behind an error: each server has its own words after these."""


def differences(expected: Answer, got: Answer) -> list[str]:
    """One line for each aspect that differs; none for equal answers.

    JSON is compared as values with the order of members. The Content-Type of HTTP errors is not compared: Triton's
    depends on how far its handler came, ours is always application/json, and clients do not look at it. More metrics
    than Triton has are no difference.
    """
    if isinstance(expected, list) and isinstance(got, list):
        pairs = enumerate(zip(expected, got, strict=True), 1)
        return [f"answer {number}: {line}" for number, pair in pairs for line in differences(*pair)]
    if not isinstance(expected, dict) or not isinstance(got, dict):
        return [] if expected == got else [_line("answer", expected, got)]
    if "metrics" in expected and "metrics" in got:
        got = got | {"metrics": [metric for metric in got["metrics"] if metric in expected["metrics"]]}
    return [
        _line(aspect, expected.get(aspect), got.get(aspect))
        for aspect in dict.fromkeys((*expected, *got))
        if _comparable(expected, aspect) != _comparable(got, aspect)
    ]


def _comparable(answer: dict[str, Any], aspect: str) -> str:
    value: Any = answer.get(aspect)
    if aspect == "headers" and value and answer["status"] >= 400:
        value = {name: text for name, text in value.items() if name != "content-type"}
    return _NOTE.sub(r"\1", json.dumps(value))


def _line(aspect: str, expected: Any, got: Any) -> str:
    first, second = (json.dumps(value, ensure_ascii=False) for value in (expected, got))
    start = next(_first_difference(first, second))
    begin = max(start - 60, 0) if start > 200 else 0
    lead = "..." if begin else ""
    end = begin + 400
    indent = " " * len(aspect)
    return f"{aspect}: Triton {lead}{first[begin:end]}\n  {indent}ours {lead}{second[begin:end]}"


def _first_difference(first: str, second: str) -> Iterator[int]:
    for position, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            yield position
    yield min(len(first), len(second))
