"""Metrics that Python models define: one time series for equal names and labels, whichever instances feed it. Pure.

A series lives as long as some worker holds it, as Triton's lives as long as some model does.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from broker.latencies import Histogram, Sample
from broker.messages import ChangeMetric, DeclareMetric, DropMetric, ErrorCode, GetMetricValue, ProtocolError
from broker.validation import Rejected

KINDS = ("counter", "gauge", "histogram")
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_OWN = ("nv_", "tidepool_")
"""How the names of the server's own families begin."""

Labels = tuple[tuple[str, str], ...]


@dataclass(slots=True)
class _Series:
    """One set of labels."""

    histogram: Histogram | None
    value: float = 0.0
    holders: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class _Family:
    kind: str
    description: str
    series: dict[Labels, _Series] = field(default_factory=dict)
    holders: Counter[str] = field(default_factory=Counter)


class CustomMetrics:
    """All families that models have defined, and which worker holds what."""

    def __init__(self) -> None:
        """There are none."""
        self._families: dict[str, _Family] = {}

    def declare(self, peer: str, wanted: DeclareMetric) -> None:
        """A worker defines a family, or (with labels) a metric of one. Raises Rejected, ProtocolError."""
        family = self._families.get(wanted.family)
        if wanted.labels is None:
            self._declare_family(peer, wanted, family)
            return
        if family is None:
            raise Rejected(f"there is no metric family '{wanted.family}'")
        if type(wanted.labels) is not dict:
            raise ProtocolError("labels that are no strings")
        for name, value in wanted.labels.items():
            if type(name) is not str or type(value) is not str or not _LABEL.fullmatch(name):
                raise Rejected(f"'{name}' is no name of a label of a metric, or its value is no string")
        if family.kind == "histogram" and "le" in wanted.labels:
            raise Rejected("'le' is the label of a histogram's buckets")
        labels = _key(wanted.labels)
        series = family.series.get(labels)
        if series is None:
            series = family.series[labels] = _new_series(family.kind, wanted.buckets)
        series.holders[peer] += 1

    def change(self, message: ChangeMetric) -> None:
        """A worker counts, sets or observes. What is not there any more is no error. Raises ProtocolError."""
        family = self._families.get(message.family)
        series = family.series.get(_key(message.labels)) if family is not None else None
        if family is None or series is None:
            return
        match message.operation:
            case "increment" if family.kind != "histogram":
                series.value += message.value
            case "set" if family.kind == "gauge":
                series.value = message.value
            case "observe" if series.histogram is not None:
                series.histogram.observe(message.value)
            case _:
                raise ProtocolError(f"'{message.operation}' of a {family.kind}")

    def value(self, question: GetMetricValue) -> float:
        """The value of a counter or gauge. Raises Rejected, ProtocolError."""
        family = self._families.get(question.family)
        series = family.series.get(_key(question.labels)) if family is not None else None
        if series is None:
            raise Rejected(f"there is no such metric of family '{question.family}'", ErrorCode.NOT_FOUND)
        return series.value

    def drop(self, peer: str, message: DropMetric) -> None:
        """A worker has let go of a metric, or (labels None) of a family with all its metrics. Raises ProtocolError."""
        family = self._families.get(message.family)
        if family is None:
            return
        if message.labels is None:
            family.holders -= Counter([peer])
            for each in family.series.values() if not family.holders[peer] else ():
                del each.holders[peer]
        elif (series := family.series.get(_key(message.labels))) is not None:
            series.holders -= Counter([peer])
        self._sweep()

    def worker_lost(self, peer: str) -> None:
        """A worker is dead."""
        if not self._families:
            return
        for family in self._families.values():
            del family.holders[peer]
            for series in family.series.values():
                del series.holders[peer]
        self._sweep()

    def families(self) -> list[dict[str, Any]]:
        """The families in the form of `metrics.families`."""
        return [
            {"name": name, "type": family.kind, "help": family.description, "samples": list(_samples(family))}
            for name, family in sorted(self._families.items())
        ]

    def _declare_family(self, peer: str, wanted: DeclareMetric, family: _Family | None) -> None:
        if not _NAME.fullmatch(wanted.family):
            raise Rejected(f"'{wanted.family}' is no name of a metric")
        if wanted.kind not in KINDS:
            raise Rejected(f"'{wanted.kind}' is no kind of a metric")
        if wanted.family.startswith(_OWN) or (family is not None and family.kind != wanted.kind):
            raise Rejected(f"Family name already exists with different type: '{wanted.family}'")
        if family is None:
            self._check_names(wanted)
            family = self._families[wanted.family] = _Family(wanted.kind, wanted.description)
        family.holders[peer] += 1

    def _check_names(self, wanted: DeclareMetric) -> None:
        """Raises Rejected when two families would have a series of one name: Prometheus refuses such a page."""
        taken = {name for known, family in self._families.items() for name in _names(known, family.kind)}
        for name in _names(wanted.family, wanted.kind):
            if name in taken:
                raise Rejected(f"'{name}' is part of another metric family")

    def _sweep(self) -> None:
        for name, family in list(self._families.items()):
            family.series = {labels: series for labels, series in family.series.items() if series.holders}
            if not family.holders:
                del self._families[name]


def _names(family: str, kind: str) -> list[str]:
    """The names that the family and its series have."""
    return [family, *[f"{family}_{end}" for end in ("bucket", "sum", "count") if kind == "histogram"]]


def _key(labels: Any) -> Labels:
    """Labels in their order. Raises ProtocolError."""
    if type(labels) is not dict or not all(type(text) is str for pair in labels.items() for text in pair):
        raise ProtocolError("labels that are no strings")
    return tuple(sorted(labels.items()))


def _new_series(kind: str, buckets: tuple[float, ...]) -> _Series:
    if (kind == "histogram") != bool(buckets):
        raise Rejected("a histogram needs buckets, and nothing else has them")
    is_finite = all(type(bound) in (int, float) and math.isfinite(bound) for bound in buckets)
    if not is_finite or list(buckets) != sorted(set(buckets)):
        raise Rejected("Bucket Boundaries must be strictly sorted")
    return _Series(Histogram(buckets) if buckets else None)


def _samples(family: _Family) -> Iterator[Sample]:
    for labels, series in sorted(family.series.items(), key=lambda entry: entry[0]):
        if series.histogram is None:
            yield dict(labels), series.value, ""
        else:
            yield from series.histogram.samples(dict(labels))
