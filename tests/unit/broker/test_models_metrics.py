"""Metrics that models define: shared by equal names and labels, gone with their last holder."""

import math
from typing import Any

import pytest

from broker.custom_metrics import CustomMetrics
from broker.messages import ChangeMetric, DeclareMetric, DropMetric, GetMetricValue, ProtocolError
from broker.validation import Rejected


def declare(
    metrics: CustomMetrics,
    peer: str,
    name: str,
    kind: str = "counter",
    labels: Any = None,
    buckets: tuple[float, ...] = (),
) -> None:
    metrics.declare(peer, DeclareMetric(1, name, kind, "of " + peer, labels, buckets))


def change(metrics: CustomMetrics, name: str, operation: str, value: float, **labels: str) -> None:
    metrics.change(ChangeMetric(name, labels, operation, value))


def samples(metrics: CustomMetrics, name: str) -> Any:
    (found,) = [family["samples"] for family in metrics.families() if family["name"] == name]
    return found


def counter(*peers: str) -> CustomMetrics:
    """A counter `hits` with the label a=1, held by these workers."""
    metrics = CustomMetrics()
    for peer in peers:
        declare(metrics, peer, "hits")
        declare(metrics, peer, "hits", labels={"a": "1"})
    return metrics


def test_instances_share_a_series_and_others_do_not() -> None:
    metrics = counter("w1", "w2")
    declare(metrics, "w2", "hits", labels={})
    change(metrics, "hits", "increment", 2, a="1")
    change(metrics, "hits", "increment", 3.5, a="1")
    change(metrics, "hits", "increment", 1)
    assert samples(metrics, "hits") == [({}, 1, ""), ({"a": "1"}, 5.5, "")]
    assert metrics.value(GetMetricValue(1, "hits", {"a": "1"})) == 5.5


def test_the_first_description_counts() -> None:
    metrics = CustomMetrics()
    declare(metrics, "w1", "hits")
    declare(metrics, "w2", "hits")
    assert [(f["help"], f["type"]) for f in metrics.families()] == [("of w1", "counter")]


def test_gauges_and_histograms() -> None:
    metrics = CustomMetrics()
    declare(metrics, "w", "depth", "gauge")
    declare(metrics, "w", "depth", "gauge", {})
    change(metrics, "depth", "set", 5)
    change(metrics, "depth", "increment", -2)
    assert samples(metrics, "depth") == [({}, 3, "")]
    declare(metrics, "w", "size", "histogram")
    declare(metrics, "w", "size", "histogram", {}, (1.0, 2.5))
    for value in (0.5, 1, 2, 9):
        change(metrics, "size", "observe", value)
    assert samples(metrics, "size") == [
        ({"le": "1"}, 2, "_bucket"),
        ({"le": "2.5"}, 3, "_bucket"),
        ({"le": "+Inf"}, 4, "_bucket"),
        ({}, 12.5, "_sum"),
        ({}, 4, "_count"),
    ]


@pytest.mark.parametrize(
    ("name", "kind", "labels", "buckets", "text"),
    [
        ("hits", "gauge", None, (), "Family name already exists with different type: 'hits'"),
        ("nv_inference_count", "counter", None, (), "already exists"),
        ("tidepool_x", "counter", None, (), "already exists"),
        ("no-name", "counter", None, (), "'no-name' is no name of a metric"),
        ("x", "summary", None, (), "'summary' is no kind of a metric"),
        ("other", "counter", {}, (), "there is no metric family 'other'"),
        ("hits", "counter", {"a-b": "1"}, (), "no name of a label"),
        ("hits", "counter", {"a": 1}, (), "no name of a label"),
        ("hits", "counter", {"b": "2"}, (1.0,), "a histogram needs buckets"),
        ("size", "histogram", {}, (), "a histogram needs buckets"),
        ("size", "histogram", {}, (2.0, 1.0), "Bucket Boundaries must be strictly sorted"),
        ("size", "histogram", {}, (1.0, 1.0), "Bucket Boundaries must be strictly sorted"),
        ("size", "histogram", {}, (1.0, math.inf), "Bucket Boundaries must be strictly sorted"),
        ("size", "histogram", {}, (math.nan,), "Bucket Boundaries must be strictly sorted"),
        ("size", "histogram", {"le": "1"}, (1.0,), "'le' is the label of a histogram's buckets"),
        ("size_count", "counter", None, (), "'size_count' is part of another metric family"),
        ("size_bucket", "histogram", None, (), "'size_bucket' is part of another metric family"),
        ("depth", "histogram", None, (), "'depth_sum' is part of another metric family"),
    ],
)
def test_what_is_refused(name: str, kind: str, labels: Any, buckets: tuple[float, ...], text: str) -> None:
    metrics = counter("w")
    declare(metrics, "w", "size", "histogram")
    declare(metrics, "w", "depth_sum", "gauge")
    with pytest.raises(Rejected, match=text):
        declare(metrics, "w", name, kind, labels, buckets)


def test_buckets_that_are_close_to_each_other_are_two() -> None:
    metrics = CustomMetrics()
    declare(metrics, "w", "size", "histogram")
    declare(metrics, "w", "size", "histogram", {}, (1000001.0, 1000002))
    bounds = [labels["le"] for labels, _, suffix in samples(metrics, "size") if suffix == "_bucket"]
    assert bounds == ["1000001", "1000002", "+Inf"]


@pytest.mark.parametrize("operation", ["set", "observe", "nonsense"])
def test_an_operation_that_its_kind_does_not_have(operation: str) -> None:
    with pytest.raises(ProtocolError):
        change(counter("w"), "hits", operation, 1, a="1")


def test_a_series_lives_as_long_as_a_worker_holds_it() -> None:
    metrics = counter("w1", "w2", "w2")
    drop = DropMetric("hits", {"a": "1"})
    metrics.drop("w2", drop)
    metrics.drop("w2", drop)
    change(metrics, "hits", "increment", 1, a="1")
    assert samples(metrics, "hits") == [({"a": "1"}, 1, "")]
    metrics.drop("w1", drop)
    assert samples(metrics, "hits") == []
    change(metrics, "hits", "increment", 1, a="1")
    with pytest.raises(Rejected):
        metrics.value(GetMetricValue(1, "hits", {"a": "1"}))
    for peer in ("w1", "w2", "w2"):
        metrics.drop(peer, DropMetric("hits", None))
    metrics.drop("w2", DropMetric("hits", None))
    assert metrics.families() == []


def test_a_family_takes_its_metrics_with_it() -> None:
    metrics = counter("w1", "w2")
    metrics.drop("w1", DropMetric("hits", None))
    metrics.drop("w2", DropMetric("hits", {"a": "1"}))
    assert samples(metrics, "hits") == []


def test_what_a_dead_worker_held_is_gone() -> None:
    metrics = counter("w1", "w2")
    metrics.worker_lost("w1")
    assert len(samples(metrics, "hits")) == 1
    metrics.worker_lost("w2")
    assert metrics.families() == []
