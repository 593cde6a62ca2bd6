"""Queue policies: priority levels, limits, timeouts."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.messages import Infer
from broker.queue import PolicyQueue, QueueFull
from broker.request import Request
from configs.description import QueuePolicy


def request(number: int = 1, at: float = 0.0, priority: int = 0, timeout_us: int = 0) -> Request:
    infer = Infer(number, "m", -1, "", (), (), {}, 0, 0, priority, timeout_us, False, at)
    return Request("h1", infer, None, (), 1, at)


def numbers(queue: PolicyQueue) -> list[int]:
    return [one.message.request for one in queue]


def test_levels_go_first_in_order_and_unknown_priorities_to_the_default_level() -> None:
    queue = PolicyQueue(dict.fromkeys((1, 2, 3), QueuePolicy()), default_level=2)
    for number, priority in enumerate([3, 0, 1, 9, 1, 2], start=1):
        queue.enqueue(request(number, priority=priority))
    assert numbers(queue) == [3, 5, 2, 4, 6, 1]
    assert [queue.popleft().message.request for _ in range(6)] == [3, 5, 2, 4, 6, 1]


def test_a_full_level_refuses_and_others_still_take() -> None:
    queue = PolicyQueue({1: QueuePolicy(max_queue_size=2), 2: QueuePolicy()}, default_level=2)
    queue.enqueue(request(1, priority=1))
    queue.enqueue(request(2, priority=1))
    with pytest.raises(QueueFull):
        queue.enqueue(request(3, priority=1))
    queue.enqueue(request(4, priority=2))
    assert numbers(queue) == [1, 2, 4]


def test_a_request_that_waited_too_long_is_rejected_at_its_very_time() -> None:
    queue = PolicyQueue({0: QueuePolicy(default_timeout=0.1)}, default_level=0)
    early, late = request(1, at=1.0), request(2, at=1.05)
    queue.enqueue(early)
    queue.enqueue(late)
    assert queue.next_expiry() == pytest.approx(1.1)
    assert queue.expire(1.0999) == []
    assert queue.expire(1.1) == [early]
    assert numbers(queue) == [2]
    queue.popleft()
    assert queue.next_expiry() is None


def test_delay_moves_behind_the_unexpired_of_the_level_and_never_expires_again() -> None:
    policies = {1: QueuePolicy(default_timeout=0.1, rejects=False), 2: QueuePolicy()}
    queue = PolicyQueue(policies, default_level=2)
    queue.enqueue(request(1, at=0.0, priority=1))
    queue.enqueue(request(2, at=0.0, priority=2))
    assert queue.expire(0.2) == []
    queue.enqueue(request(3, at=0.2, priority=1))
    assert numbers(queue) == [3, 1, 2]
    assert queue.expire(10.0) == []
    assert numbers(queue) == [1, 3, 2]


@pytest.mark.parametrize(
    ("policy", "own_us", "expiry"),
    [
        (QueuePolicy(default_timeout=0.1, allow_timeout_override=True), 50_000, 0.05),
        (QueuePolicy(default_timeout=0.1, allow_timeout_override=True), 500_000, 0.1),
        (QueuePolicy(default_timeout=0.1), 50_000, 0.1),
        (QueuePolicy(allow_timeout_override=True), 50_000, None),
    ],
)
def test_a_request_may_only_shorten_a_timeout_that_there_is(
    policy: QueuePolicy, own_us: int, expiry: float | None
) -> None:
    queue = PolicyQueue({0: policy}, default_level=0)
    queue.enqueue(request(timeout_us=own_us))
    assert queue.next_expiry() == (None if expiry is None else pytest.approx(expiry))


def test_what_comes_back_from_a_dead_worker_goes_first_and_has_no_timeout() -> None:
    queue = PolicyQueue({1: QueuePolicy(default_timeout=0.1), 2: QueuePolicy()}, default_level=2)
    queue.enqueue(request(1, priority=1))
    back = request(2, priority=2)
    queue.requeue(back)
    assert numbers(queue) == [2, 1]
    assert [one.message.request for one in queue.expire(5.0)] == [1]
    assert numbers(queue) == [2]


def test_what_has_left_is_not_remembered_until_its_timeout() -> None:
    queue = PolicyQueue({0: QueuePolicy(default_timeout=1e6, allow_timeout_override=True)}, default_level=0)
    queue.enqueue(request(0, timeout_us=1_000_000))  # stays, and is the first to time out
    for number in range(1, 2000):
        queue.enqueue(request(number))
        assert queue.remove(list(queue)[-1])
    assert len(queue._expiries) < 100, "which grows with each request of a server that runs for months"


@dataclass(frozen=True)
class Step:
    action: str
    priority: int
    seconds: float


@given(
    st.lists(
        st.builds(
            Step,
            st.sampled_from(["put", "take", "back", "expire", "remove"]),
            st.integers(0, 3),
            st.sampled_from([0.0, 0.03, 0.2]),
        ),
        max_size=60,
    )
)
def test_nothing_is_lost_or_doubled_and_limits_hold(steps: list[Step]) -> None:
    policies = {
        1: QueuePolicy(max_queue_size=3, default_timeout=0.1),
        2: QueuePolicy(default_timeout=0.05, rejects=False),
        3: QueuePolicy(max_queue_size=2),
    }
    queue, inside, taken, now = PolicyQueue(policies, default_level=2), set[Request](), list[Request](), 0.0
    for number, step in enumerate(steps):
        now += step.seconds
        if step.action == "put":
            one = request(number, now, step.priority)
            try:
                queue.enqueue(one)
                inside.add(one)
            except QueueFull:
                assert step.priority in {1, 3}
        elif step.action == "take" and len(queue):
            taken.append(queue.popleft())
            inside.remove(taken[-1])
        elif step.action == "back" and taken:
            one = taken.pop()
            queue.requeue(one)
            inside.add(one)
        elif step.action == "remove" and inside:
            one = min(inside, key=lambda r: r.message.request)
            assert queue.remove(one)
            assert not queue.remove(one)
            inside.remove(one)
        elif step.action == "expire":
            for one in queue.expire(now):
                assert one.message.priority == 1
                assert now >= one.enqueued + 0.1
                inside.remove(one)
            expiry = queue.next_expiry()
            assert expiry is None or expiry > now
        assert set(queue) == inside
        assert len(queue) == len(inside) == len(list(queue))
