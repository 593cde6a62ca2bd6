"""Metric families as Prometheus text, format 0.0.4. Pure.

Written here and not by prometheus_client, which would append `_total` to the counters that Triton's dashboards know.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

CONTENT_TYPE = "text/plain; charset=utf-8"


def render(families: Iterable[Mapping[str, Any]]) -> bytes:
    """The page for families `{"name", "type", "help", "samples": [(labels, number, suffix), ...]}`.

    The suffix (`_bucket`, `_sum`, mostly `""`) follows the family's name. Families without samples are left out.
    """
    lines = [line for family in families if family["samples"] for line in _family(family)]
    return "".join(f"{line}\n" for line in lines).encode()


def _family(family: Mapping[str, Any]) -> list[str]:
    name, escaped = family["name"], family["help"].replace("\\", "\\\\").replace("\n", "\\n")
    samples = [f"{name}{suffix}{_labels(labels)} {_number(value)}" for labels, value, suffix in family["samples"]]
    return [f"# HELP {name} {escaped}", f"# TYPE {name} {family['type']}", *samples]


def _labels(labels: Mapping[str, str]) -> str:
    pairs = [f'{key}="{_escape(value)}"' for key, value in sorted(labels.items())]
    return "{" + ",".join(pairs) + "}" if pairs else ""


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    """Integers without a point, as Triton writes them."""
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if math.isnan(value):
        return "NaN"
    return str(int(value)) if value == int(value) else repr(value)
