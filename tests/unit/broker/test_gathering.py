"""Batches of requests that have something in common, gathered from among others."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.request import Request
from broker.schedulers import DynamicScheduler, GatheringScheduler, make
from broker.schedulers.company import bucket
from broker.schedulers.gathering import LOOK_AHEAD
from configs.description import DynamicBatching, Padding, QueuePolicy, TensorSpec
from tests.unit.broker.describe import batching, description, infer
from tests.unit.broker.test_schedulers import sizes

BUCKETS = (TensorSpec("IN", "FP32", (-1,), padding=Padding(1, (4, 8))),)


def request(key: object = None, size: int = 4, number: int = 0, enqueued: float = 0.0) -> Request:
    message = infer(number, shape=(1, size), parameters={} if key is None else {"lora": key})
    return Request("h1", message, None, message.inputs, 1, enqueued)


def keyed(*keys: object, delay: float = 0.0) -> GatheringScheduler:
    scheduler = make(description(batching=batching(8, delay=delay), batch_key="lora"))
    assert isinstance(scheduler, GatheringScheduler)
    for number, key in enumerate(keys):
        scheduler.enqueue(request(key, number=number))
    return scheduler


def taken(scheduler: GatheringScheduler, now: float = 0.0) -> list[list[int]]:
    batches = []
    while batch := scheduler.next_batch(now, is_idle=True):
        batches.append([each.message.request for each in batch])
    return batches


def test_only_equal_keys_run_together_and_are_looked_for_behind_others() -> None:
    assert taken(keyed(*"ababcab")) == [[0, 2, 5], [1, 3, 6], [4]]


def test_a_key_is_equal_in_type_too_and_its_absence_is_one() -> None:
    assert taken(keyed(1, True, "1", 1.0, None, 1)) == [[0, 5], [1], [2], [3], [4]]


def test_shapes_have_to_be_equal_as_well() -> None:
    scheduler = keyed("a", "a")
    scheduler.enqueue(request("a", size=5, number=2))
    assert taken(scheduler) == [[0, 1], [2]]


def test_a_full_batch_does_not_wait_behind_one_that_waits_for_company() -> None:
    scheduler = keyed("a", *"bbbbbbbb", delay=9.0)
    assert taken(scheduler) == [[1, 2, 3, 4, 5, 6, 7, 8]]
    assert scheduler.deadline() == 9.0
    assert taken(scheduler, 9.0) == [[0]]


def test_a_request_that_met_a_death_runs_alone() -> None:
    scheduler = keyed(*"aaa")
    list(scheduler._queue)[1].crashes = 1
    assert taken(scheduler) == [[0, 2], [1]]


@pytest.mark.parametrize(("size", "expected"), [(1, 4), (4, 4), (5, 8), (8, 8), (9, 9), (0, 4)])
def test_a_bucket_takes_what_is_not_larger(size: int, expected: int) -> None:
    assert bucket(Padding(1, (4, 8)), size) == expected
    assert bucket(Padding(1), size) == 0


def test_requests_of_a_bucket_run_together() -> None:
    scheduler = make(description(batching=batching(8), inputs=BUCKETS))
    for number, size in enumerate([1, 5, 4, 8, 9, 2, 10, 9]):
        scheduler.enqueue(request(size=size, number=number))
    assert sizes(scheduler) == [3, 2, 2, 1]


def test_without_buckets_all_lengths_run_together_in_order() -> None:
    spec = TensorSpec("IN", "FP32", (-1,), padding=Padding(1))
    scheduler = make(description(batching=batching(8), inputs=(spec,)))
    assert type(scheduler) is DynamicScheduler
    for number in range(5):
        scheduler.enqueue(request(size=number + 1))
    assert sizes(scheduler) == [5]


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 10)), max_size=40),
    st.sampled_from([0.0, 0.5, 5.0]),
    st.lists(st.tuples(st.floats(10, 20), st.booleans()), max_size=10),
)
def test_nothing_is_lost_and_equals_do_not_overtake(
    arrivals: list[tuple[str, float]], delay: float, looks: list[tuple[float, bool]]
) -> None:
    scheduler = keyed(delay=delay)
    requests = [request(key, number=n, enqueued=at) for n, (key, at) in enumerate(sorted(arrivals, key=lambda a: a[1]))]
    for each in requests:
        scheduler.enqueue(each)
    left: list[Request] = []
    for now, is_idle in [*sorted(looks), *[(100.0, True)] * len(requests)]:
        first = next(iter(scheduler._queue), None)
        batch = scheduler.next_batch(now, is_idle)
        assert len(batch) <= 8
        assert len({each.message.parameters["lora"] for each in batch}) <= 1
        if is_idle and not delay:
            assert first is None or first in batch, "who is next goes"
        if not batch and is_idle and len(scheduler):
            deadline = scheduler.deadline()
            assert deadline is not None
            assert deadline > now, "it waits, and nobody knows until when"
        left += batch
    assert len(scheduler) == 0
    for key in "abc":
        mine = [each for each in requests if each.message.parameters["lora"] == key]
        assert [each for each in left if each.message.parameters["lora"] == key] == mine


def test_what_is_not_looked_at_wakes_nobody() -> None:
    levels = DynamicBatching((8,), 10.0, False, 2, {1: QueuePolicy(), 2: QueuePolicy()})
    scheduler = make(description(batching=levels, batch_key="lora"))
    scheduler.enqueue(request("late", enqueued=0.0))
    for number in range(LOOK_AHEAD):
        urgent = request(number, enqueued=5.0)
        urgent.message = urgent.message._replace(priority=1)
        scheduler.enqueue(urgent)
    assert scheduler.next_batch(10.0, is_idle=True) == []
    assert scheduler.deadline() == 15.0


def test_a_long_queue_of_many_kinds_is_not_walked_to_its_end() -> None:
    scheduler = keyed(*range(4 * LOOK_AHEAD), delay=1.0)
    assert len(scheduler._seen()) == LOOK_AHEAD
    assert len(taken(scheduler, 2.0)) == 4 * LOOK_AHEAD
