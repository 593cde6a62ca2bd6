"""Histograms and sliding quantiles, held against plain sorting."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.latencies import Histogram, Latencies, Summary
from configs.metrics_config import MetricsConfig


@given(st.lists(st.floats(0, 20)))
def test_buckets_are_cumulative_and_hold_everything(values: list[float]) -> None:
    histogram = Histogram((0.5, 1.0, 10.0))
    for value in values:
        histogram.observe(value)
    rows = {(suffix, labels.get("le")): number for labels, number, suffix in histogram.samples({"model": "m"})}
    for bound, text in ((0.5, "0.5"), (1.0, "1"), (10.0, "10"), (math.inf, "+Inf")):
        assert rows["_bucket", text] == sum(1 for value in values if value <= bound)
    assert rows["_count", None] == len(values)
    assert rows["_sum", None] == pytest.approx(sum(values))


@given(st.lists(st.floats(1, 1e9), min_size=1, max_size=200), st.sampled_from([0.0, 0.5, 0.9, 0.99, 1.0]))
def test_a_quantile_is_right_within_two_percent(values: list[float], quantile: float) -> None:
    summary = Summary()
    for value in values:
        summary.observe(value, now=100.0)
    exact = sorted(values)[max(1, math.ceil(quantile * len(values))) - 1]
    ((labels, found, _), *_) = summary.samples({}, (quantile,), now=100.0)
    assert labels == {"quantile": repr(quantile).removesuffix(".0")}
    assert found == pytest.approx(exact, rel=0.02)


def test_what_is_older_than_a_minute_does_not_count_but_the_sum_stays() -> None:
    summary = Summary()
    summary.observe(1000.0, now=1000.0)
    assert summary.samples({}, (0.5,), now=1050.0)[0][1] == pytest.approx(1000.0, rel=0.02)
    summary.observe(5.0, now=1055.0)
    assert summary.samples({}, (0.5,), now=1065.0)[0][1] == pytest.approx(5.0, rel=0.02)
    rows = summary.samples({}, (0.5,), now=2000.0)
    assert math.isnan(rows[0][1])
    assert [number for _, number, suffix in rows if suffix == "_count"] == [2]


def test_the_optional_kinds_are_off_until_asked_for() -> None:
    latencies = Latencies()
    latencies.succeeded([5000], [1000], [(0, 10, 20, 30)], [1.0])
    latencies.responded(0.2)
    assert latencies.first_response is None
    assert not latencies.summaries
    latencies.configure(MetricsConfig(histogram_latencies=True, summary_latencies=True), {})
    latencies.succeeded([5000], [1000], [(0, 10, 20, 30)], [1.0])
    latencies.responded(0.2)
    assert latencies.first_response is not None
    assert ({"le": "500"}, 1, "_bucket") in latencies.first_response.samples({})
    assert latencies.summaries["request"].samples({}, (0.5,), 1.0)[0][1] == pytest.approx(5.0, rel=0.02)
