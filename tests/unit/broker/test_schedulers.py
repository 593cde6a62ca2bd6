"""Which requests run together, by Triton's examples; and whatever comes, none is lost and none overtakes."""

import time
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.queue import QueueFull
from broker.request import Request
from broker.schedulers import DefaultScheduler, DynamicScheduler, Scheduler, make
from configs.description import DynamicBatching, QueuePolicy, TensorSpec
from tests.unit.broker.describe import batching, description, infer


def request(number: int = 0, batch: int = 1, size: int = 4, enqueued: float = 0.0, **changes: Any) -> Request:
    message = infer(number, shape=(batch, size))
    made = Request("h1", message, None, message.inputs, batch, enqueued)
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def dynamic(
    *preferred: int, delay: float = 0.0, limit: int = 8, batches: list[Request] | None = None
) -> DynamicScheduler:
    scheduler = DynamicScheduler(DynamicBatching(preferred or (limit,), delay), limit)
    for each in batches or []:
        scheduler.enqueue(each)
    return scheduler


def sizes(scheduler: DynamicScheduler, now: float = 0.0, is_idle: bool = True) -> list[int]:
    """The total sizes of the batches that leave, one after the other."""
    found = []
    while batch := scheduler.next_batch(now, is_idle):
        found.append(sum(each.batch for each in batch))
    return found


def test_a_configuration_chooses_its_scheduler() -> None:
    assert type(make(description())) is DefaultScheduler
    assert type(make(description(batching=batching()))) is DynamicScheduler


# ------------------------------------------------------------------------------------------- default


def test_by_default_every_request_runs_alone_in_order() -> None:
    scheduler = DefaultScheduler()
    requests = [request(n) for n in range(3)]
    for each in requests:
        scheduler.enqueue(each)
    assert len(scheduler) == 3
    assert scheduler.deadline() is None
    assert [scheduler.next_batch(0.0, False) for _ in range(4)] == [[each] for each in requests] + [[]]


@pytest.mark.parametrize("scheduler", [DefaultScheduler(), dynamic(2)])
def test_what_comes_back_is_first_and_what_is_taken_out_is_gone(scheduler: DefaultScheduler) -> None:
    first, second, third = (request(n) for n in range(3))
    scheduler.enqueue(second)
    scheduler.enqueue(third)
    scheduler.requeue(first)
    assert scheduler.remove(second)
    assert not scheduler.remove(second)
    assert scheduler.drain() == [first, third]
    assert len(scheduler) == 0
    assert scheduler.drain() == []


# ------------------------------------------------------------------------------------------- dynamic, without delay


def test_the_queue_is_cut_at_the_largest_preferred_size() -> None:
    assert sizes(dynamic(4, batches=[request(n) for n in range(7)])) == [4, 3]
    assert sizes(dynamic(2, 4, batches=[request(n) for n in range(7)])) == [4, 2, 1]


def test_without_preference_batches_are_as_large_as_allowed() -> None:
    assert sizes(dynamic(batches=[request(n) for n in range(20)])) == [8, 8, 4]


def test_requests_of_several_items_are_not_cut() -> None:
    assert sizes(dynamic(batches=[request(0, 3), request(1, 3), request(2, 3)])) == [6, 3]
    assert sizes(dynamic(4, batches=[request(0, 3), request(1, 3)])) == [3, 3], "the largest preferred is not passed"
    assert sizes(dynamic(4, batches=[request(0, 6), request(1, 1)])) == [6, 1]


def test_only_equal_shapes_run_together_and_nobody_overtakes() -> None:
    batch = [request(0, size=4), request(1, size=4), request(2, size=5), request(3, size=4)]
    assert sizes(dynamic(batches=batch)) == [2, 1, 1]


def test_ragged_inputs_may_differ_in_shape() -> None:
    inputs = (TensorSpec("IN", "FP32", (-1,), ragged=True),)
    scheduler = make(description(batching=batching(), inputs=inputs))
    for number in range(4):
        scheduler.enqueue(request(number, size=number + 1))
    assert len(scheduler.next_batch(0.0, True)) == 4


def test_a_request_that_met_a_death_runs_alone() -> None:
    batch = [request(0), request(1, crashes=1), request(2), request(3, kills=1)]
    assert sizes(dynamic(batches=batch)) == [1, 1, 1, 1]


def test_a_model_without_batch_dimension_has_batches_of_one() -> None:
    scheduler = make(description(batching=batching(1), max_batch_size=0))
    for number in range(3):
        scheduler.enqueue(request(number))
    assert [len(scheduler.next_batch(0.0, True)) for _ in range(4)] == [1, 1, 1, 0]


# ------------------------------------------------------------------------------------------- dynamic, with delay


def test_requests_wait_for_company_also_when_an_instance_is_idle() -> None:
    scheduler = dynamic(delay=0.5, batches=[request(0, enqueued=10.0), request(1, enqueued=10.4)])
    assert scheduler.deadline() == 10.5
    assert sizes(scheduler, 10.49) == []
    assert sizes(scheduler, 10.5) == [2], "everything goes with the first that has waited long enough"
    assert scheduler.deadline() is None


def test_a_preferred_size_does_not_wait() -> None:
    assert sizes(dynamic(4, delay=9.0, batches=[request(n) for n in range(7)])) == [4], "the rest waits"
    assert sizes(dynamic(2, 4, delay=9.0, batches=[request(n) for n in range(3)])) == [2]


def test_what_has_waited_long_enough_may_exceed_the_preferred_size() -> None:
    scheduler = dynamic(4, delay=1.0, batches=[request(n) for n in range(7)])
    assert sizes(scheduler, 2.0) == [7]


def test_nothing_waits_that_cannot_get_company() -> None:
    assert sizes(dynamic(delay=9.0, batches=[request(0), request(1, size=5)])) == [1], "another shape is next"
    assert sizes(dynamic(delay=9.0, batches=[request(0, 5), request(1, 5)])) == [5], "the next does not fit"
    assert sizes(dynamic(delay=9.0, batches=[request(0, crashes=1)])) == [1], "it runs alone"
    assert sizes(dynamic(delay=9.0, batches=[request(0, 8)])) == [8], "it is full"


def test_behind_a_busy_instance_only_full_batches_queue_up() -> None:
    assert sizes(dynamic(batches=[request(n) for n in range(7)]), is_idle=False) == []
    assert sizes(dynamic(batches=[request(n) for n in range(9)]), is_idle=False) == [8]
    assert sizes(dynamic(4, batches=[request(n) for n in range(9)]), is_idle=False) == [4, 4]
    assert sizes(dynamic(batches=[request(0), request(1, size=5)]), is_idle=False) == [1], "it does not grow any more"


# ------------------------------------------------------------------------------------------- whatever comes

REQUESTS = st.builds(
    request,
    st.just(0),
    st.integers(1, 8),
    st.sampled_from([4, 4, 4, 5]),
    st.floats(0, 10),
    crashes=st.sampled_from([0, 0, 0, 1]),
)


@given(
    st.lists(REQUESTS, max_size=30),
    st.sets(st.integers(1, 8), max_size=3),
    st.sampled_from([0.0, 0.1, 5.0]),
    st.lists(st.tuples(st.floats(10, 20), st.booleans()), max_size=20),
)
def test_nothing_is_lost_or_overtakes_or_is_too_large(
    requests: list[Request], preferred: set[int], delay: float, looks: list[tuple[float, bool]]
) -> None:
    requests.sort(key=lambda each: each.enqueued)
    scheduler = dynamic(*preferred, delay=delay, batches=requests)
    left: list[Request] = []
    for now, is_idle in [*sorted(looks), *[(100.0, True)] * len(requests)]:
        batch = scheduler.next_batch(now, is_idle)
        assert sum(each.batch for each in batch) <= 8
        assert len({each.inputs[0].shape[1:] for each in batch}) <= 1
        assert len(batch) <= 1 or not any(each.is_solo for each in batch)
        if not batch and is_idle and len(scheduler):
            deadline = scheduler.deadline()
            assert deadline is not None
            assert deadline > now, "it waits, and nobody knows until when"
        left += batch
    assert left == requests
    assert len(scheduler) == 0


OWN = QueuePolicy(default_timeout=100.0, allow_timeout_override=True, rejects=False)
LEVELS = {1: QueuePolicy(), 2: OWN}
LONG = 10_000
"""Requests of a queue that takes minutes if each step walks it."""


@cache
def many() -> list[Request]:
    """Requests of which the last to come are the first to time out."""
    requests = [request(number, enqueued=number / LONG) for number in range(LONG)]
    for number, each in enumerate(requests):
        each.message = each.message._replace(timeout_us=90_000_000 - 2000 * number, priority=2)
    return requests


def long(scheduler: Scheduler) -> list[Request]:
    for each in many():
        scheduler.enqueue(each)
    return many()


@pytest.mark.parametrize("delay", [0.0, 1000.0])
@pytest.mark.parametrize("policies", [{0: QueuePolicy()}, LEVELS])
def test_a_long_queue_is_not_walked_for_every_batch(delay: float, policies: dict[int, QueuePolicy]) -> None:
    scheduler = DynamicScheduler(DynamicBatching((2,), delay, False, max(policies), policies), 2)
    long(scheduler)
    began = time.process_time()
    for _ in range(LONG // 2):
        scheduler.deadline()
        assert len(scheduler.next_batch(1.0, True)) == 2
    assert time.process_time() - began < 0.6


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("asked", [None, DynamicBatching((8,)), DynamicBatching((8,), 0.1, False, 2, LEVELS)])
def test_a_long_queue_is_not_walked_for_who_leaves_it(asked: DynamicBatching | None, order: int) -> None:
    scheduler = make(description(batching=asked))
    requests = long(scheduler)
    began = time.process_time()
    assert all(scheduler.remove(each) for each in requests[::order])
    assert time.process_time() - began < 0.6
    assert len(scheduler) == 0


def test_a_long_queue_is_not_walked_for_each_that_has_waited_too_long() -> None:
    scheduler = DynamicScheduler(DynamicBatching((8,), 0.1, False, 2, LEVELS), 8)
    requests = long(scheduler)
    began = time.process_time()
    while (expiry := scheduler.next_expiry()) is not None:
        assert scheduler.expire(expiry) == [], "they only move back"
    assert time.process_time() - began < 0.6
    assert scheduler.drain() == requests[::-1]


# ------------------------------------------------------------------------------------------- other settings


@pytest.mark.parametrize("scheduler", [DefaultScheduler(), dynamic(2)])
def test_what_waited_under_other_settings_keeps_its_place(scheduler: Scheduler) -> None:
    first, second = request(1), request(2)
    scheduler.readmit(first)
    scheduler.readmit(second)
    assert scheduler.drain() == [first, second]


def test_nobody_is_refused_who_waited_under_other_settings() -> None:
    scheduler = DynamicScheduler(DynamicBatching((8,), 0.0, False, 0, {0: QueuePolicy(max_queue_size=1)}), 8)
    for number in range(3):
        scheduler.readmit(request(number))
    assert len(scheduler) == 3
    with pytest.raises(QueueFull):
        scheduler.enqueue(request(3))
