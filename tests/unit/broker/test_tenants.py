"""Fair queueing: shares follow weights while all have work, nobody starves, nobody who left is remembered."""

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.queue import PolicyQueue, QueueFull
from broker.request import Request
from broker.schedulers import make
from broker.tenants import FairQueue
from configs.description import QueuePolicy, Tenants
from tests.unit.broker.describe import batching, description, infer

LARGEST = 4
WEIGHTS = {"a": 1.0, "b": 2.0, "c": 5.0, "d": 0.5}


def request(tenant: str, number: int = 0, cost: int = 1, priority: int = 0, enqueued: float = 0.0) -> Request:
    message = infer(number, shape=(cost, 4), parameters={"tenant": tenant}, priority=priority)
    return Request("h1", message, None, message.inputs, cost, enqueued)


def name(one: Request) -> str:
    return str(one.message.parameters["tenant"])


def fair(**weights: float) -> FairQueue:
    return FairQueue(Tenants("tenant", weights))


def filled(queue: FairQueue, *tenants: str) -> FairQueue:
    for number, tenant in enumerate(tenants):
        queue.append(request(tenant, number))
    return queue


def order(queue: FairQueue) -> str:
    return "".join(name(queue.popleft()) for _ in range(len(queue)))


def test_tenants_take_turns_whoever_came_first() -> None:
    assert order(filled(fair(), *"aaaaabb")) == "abab" + "aaa"


def test_a_weight_of_two_gives_two_turns() -> None:
    assert order(filled(fair(b=2.0), *"aaabbbbbb")) == "babbabbab"


def test_who_had_nothing_to_do_has_saved_up_nothing() -> None:
    queue = filled(fair(), *"aaaaaaaaaa")
    for _ in range(5):
        queue.popleft()
    assert order(filled(queue, *"bbb")) == "abababaa"


def test_large_requests_cost_more() -> None:
    queue = fair()
    for number in range(4):
        queue.append(request("a", number, cost=2))
        queue.append(request("b", number))
    assert order(queue) == "babbabaa"


def test_who_names_no_tenant_is_one_too() -> None:
    queue = fair()
    plain = [Request("h1", infer(n), None, (), 1, 0.0) for n in range(3)]
    for each in plain:
        queue.append(each)
    queue.append(request("a"))
    assert [each in plain for each in queue] == [True, False, True, True]


def test_a_cancelled_request_costs_nothing() -> None:
    queue = fair()
    cancelled = [request("a", n) for n in range(5)]
    for each in cancelled:
        queue.append(each)
    for each in cancelled:
        queue.remove(each)
    filled(queue, *"aabb")
    assert order(queue) == "abab"


# ------------------------------------------------------------------------------------------- whatever comes

COSTS = st.integers(1, LARGEST)
TENANTS = st.sampled_from(sorted(WEIGHTS))


@given(st.dictionaries(TENANTS, st.lists(COSTS, min_size=1, max_size=20), min_size=2), st.randoms())
def test_shares_follow_weights_while_all_have_work(wanted: dict[str, list[int]], random: object) -> None:
    queue = fair(**WEIGHTS)
    arrivals = [request(tenant, cost=cost) for tenant, costs in wanted.items() for cost in costs]
    random.shuffle(arrivals)  # type: ignore[attr-defined]  # hypothesis' Random
    for each in arrivals:
        queue.append(each)
    served: Counter[str] = Counter()
    left = Counter(map(name, arrivals))
    while all(left.values()):
        taken = queue.popleft()
        left[name(taken)] -= 1
        served[name(taken)] += taken.batch
        for one in wanted:
            for other in wanted:
                gap = served[one] / WEIGHTS[one] - served[other] / WEIGHTS[other]
                assert gap <= LARGEST / WEIGHTS[one] + LARGEST / WEIGHTS[other]


@given(st.lists(st.tuples(TENANTS, COSTS, st.booleans()), max_size=80), COSTS)
def test_no_tenant_waits_longer_than_the_others_weights_allow(
    before_and_after: Sequence[tuple[str, int, bool]], cost: int
) -> None:
    queue = fair(**WEIGHTS)
    for tenant, each, takes in before_and_after:
        queue.append(request("b" if tenant == "a" else tenant, cost=each))
        if takes:
            queue.popleft()
    mine = request("a", cost=cost)
    queue.append(mine)
    passed = 0
    for tenant, each, _ in [*before_and_after, *[("c", LARGEST, True)] * 200]:
        queue.append(request("b" if tenant == "a" else tenant, cost=each))
        taken = queue.popleft()
        if taken is mine:
            break
        passed += taken.batch
    others = sum(weight for tenant, weight in WEIGHTS.items() if tenant != "a")
    assert mine not in queue
    assert passed <= others * cost / WEIGHTS["a"] + LARGEST * (len(WEIGHTS) - 1)


@given(st.lists(st.tuples(st.sampled_from(["put", "put", "take", "remove"]), TENANTS, COSTS), max_size=60))
def test_it_is_a_queue(steps: list[tuple[str, str, int]]) -> None:
    queue = fair(**WEIGHTS)
    inside: list[Request] = []
    for action, tenant, cost in steps:
        if action == "put":
            inside.append(request(tenant, cost=cost))
            queue.append(inside[-1])
        elif inside and action == "take":
            first = next(iter(queue))
            assert queue.popleft() is first
            mine = [each for each in inside if name(each) == name(first)]
            assert mine[0] is first, "a tenant's own stay in order"
            inside.remove(first)
        elif inside:
            gone = inside.pop(cost % len(inside))
            queue.remove(gone)
            assert gone not in queue
        assert len(queue) == len(inside) == len(list(queue))
        assert all(each in queue for each in inside)
        assert queue._tenants.keys() == set(map(name, inside)), "who has nothing here is forgotten"
        assert inside or not queue._time, "virtual time does not grow for ever"
        for each in inside:
            assert queue.queued(each) == sum(name(other) == name(each) for other in inside)


# ------------------------------------------------------------------------------------------- in the schedulers


def test_priorities_come_before_tenants() -> None:
    queue = PolicyQueue({1: QueuePolicy(), 2: QueuePolicy()}, 2, Tenants("tenant"))
    for tenant, priority in [("a", 2), ("a", 2), ("b", 2), ("a", 1), ("a", 1), ("b", 1)]:
        queue.enqueue(request(tenant, priority=priority))
    assert [(name(each), each.message.priority) for each in queue] == [
        ("a", 1),
        ("b", 1),
        ("a", 1),
        ("a", 2),
        ("b", 2),
        ("a", 2),
    ]


def test_each_tenant_has_a_queue_of_its_own_to_fill() -> None:
    queue = PolicyQueue({0: QueuePolicy(max_queue_size=2)}, 0, Tenants("tenant"))
    for _ in range(2):
        queue.enqueue(request("a"))
    with pytest.raises(QueueFull):
        queue.enqueue(request("a"))
    queue.enqueue(request("b"))
    assert len(queue) == 3


def test_timeouts_hold_for_tenants_too() -> None:
    queue = PolicyQueue({0: QueuePolicy(default_timeout=0.1)}, 0, Tenants("tenant"))
    for number in range(3):
        queue.enqueue(request("a", number))
    queue.popleft()
    assert [each.message.request for each in queue.expire(1.0)] == [1, 2]
    assert queue.next_expiry() is None


@pytest.mark.parametrize("block", [None, batching(8)])
def test_a_model_with_or_without_batching_is_shared(block: object) -> None:
    scheduler = make(description(batching=block, max_batch_size=8, tenants=Tenants("tenant", {"b": 2.0})))
    for number, tenant in enumerate("aaaaaaaabbbbbbbb"):
        scheduler.enqueue(request(tenant, number, cost=1 if block else 3))
    assert scheduler.next_batch(0.0, is_idle=False) == [], "who waits at a worker cannot let others go first"
    batches = []
    while batch := scheduler.next_batch(0.0, is_idle=True):
        batches.append("".join(map(name, batch)))
    assert batches == (["babbabba", "bbabaaaa"] if block else list("babbabbabbabaaaa"))


def test_what_is_gathered_counts_as_served() -> None:
    scheduler = make(description(batching=batching(1), max_batch_size=1, batch_key="lora", tenants=Tenants("tenant")))
    for number in range(10):
        scheduler.enqueue(request("a", number))
    for _ in range(5):
        scheduler.next_batch(0.0, is_idle=True)
    for number in range(3):
        scheduler.enqueue(request("b", number))
    order = [name(scheduler.next_batch(0.0, is_idle=True)[0]) for _ in range(8)]
    assert "".join(order) == "abababaa"


def test_the_delay_is_that_of_the_oldest_wherever_it_is() -> None:
    scheduler = make(description(batching=batching(8, delay=1.0), tenants=Tenants("tenant", {"b": 9.0})))
    scheduler.enqueue(request("a", 0, enqueued=1.0))
    scheduler.enqueue(request("b", 1, enqueued=1.5))
    assert scheduler.deadline() == 2.0
    assert scheduler.next_batch(1.9, is_idle=True) == []
    assert len(scheduler.next_batch(2.0, is_idle=True)) == 2
