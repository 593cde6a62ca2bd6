"""Counts that follow the load: up fast, down slowly, never outside of the range."""

from hypothesis import given
from hypothesis import strategies as st

from broker.autoscaling import DOWN_SECONDS, UP_SECONDS, Autoscaler, at_count, count_of, demand
from tests.unit.broker.describe import instances


def follow(demands: list[float], count: int = 1, low: int = 1, high: int = 8) -> list[int]:
    """The counts of a model with this demand in one second after the other."""
    autoscaler = Autoscaler(began=0.0)
    counts = []
    for second, wanted in enumerate(demands, start=1):
        autoscaler.observe(wanted, float(second))
        count = autoscaler.decide(count, low, high, float(second))
        counts.append(count)
    return counts


def test_lasting_load_brings_instances_within_seconds_and_no_more_than_twice_as_many_at_once() -> None:
    counts = follow([6.0] * 10)
    assert counts[: int(UP_SECONDS) - 1] == [1]
    assert [count for before, count in zip([1, *counts], counts, strict=False) if count != before] == [2, 4, 8]


def test_a_moment_of_load_brings_none() -> None:
    assert set(follow([0.5, 0.5, 0.5, 5.0, 0.5, 0.5, 0.5])) == {1}


def test_instances_go_when_the_last_minute_has_not_needed_them() -> None:
    counts = follow([3.0] * 5 + [0.5] * 120)
    assert counts[4] == 4
    gone = counts.index(1, 5)
    assert DOWN_SECONDS <= gone + 1 - 5 <= DOWN_SECONDS + 2
    assert set(counts[gone:]) == {1}


def test_a_peak_within_the_last_minute_keeps_them() -> None:
    assert set(follow(([3.0] * 3 + [0.5] * 50) * 4)[10:]) == {4}


def test_by_hand_counts_for_a_minute() -> None:
    autoscaler = Autoscaler(began=0.0)
    for second in range(100):
        autoscaler.observe(0.0, float(second))
    autoscaler.restart(100.0)
    seconds = [101.0 + second for second in range(100)]
    counts = []
    for second in seconds:
        autoscaler.observe(0.0, second)
        counts.append(autoscaler.decide(3, 1, 4, second))
    assert counts[int(DOWN_SECONDS) - 2] == 3
    assert counts[-1] == 1


@given(st.lists(st.floats(0, 100), min_size=1, max_size=100), st.integers(0, 5), st.integers(0, 5), st.integers(1, 9))
def test_the_range_is_kept(demands: list[float], low: int, more: int, count: int) -> None:
    high = max(1, low + more)
    assert all(max(1, low) <= each <= high for each in follow(demands, count, low, high))


def test_what_is_queued_counts_in_batches() -> None:
    assert demand(1.0, queued=9, batch=4) == 4.0
    assert demand(0.5, queued=0, batch=4) == 0.5
    assert demand(1.0, queued=3, batch=0) == 4.0


@given(st.integers(1, 5), st.integers(0, 5))
def test_instances_at_another_count_have_the_names_of_that_count(now: int, wanted: int) -> None:
    two_groups = instances("m", now) + instances("m", now, group=1)
    assert at_count(two_groups, wanted) == instances("m", wanted) + instances("m", wanted, group=1)
    assert count_of(two_groups) == now
