"""Models that call other models: whose memory is whose, deaths on both ends, and calls that could never be answered."""

from typing import Any

import pytest

from broker.messages import COMPLETE, ErrorCode, Part, RegionClosed, RegionOpened
from broker.requests import OUTAGE_SECONDS
from tests.unit.broker.describe import batching, description, infer
from tests.unit.broker.world import Process, Record, World


def started(*models: str, **counts: int) -> World:
    world = World()
    world.start(*[description(name, count=counts.get(name, 1)) for name in models])
    return world


def begin(world: World, asker: Process, model: str, **changes: Any) -> tuple[Record, Process]:
    """A request that a worker begins to execute, and that worker."""
    record = world.ask(asker, infer(0, model, **changes))
    worker = world.processes[record.worker]
    world.begin(worker)
    return record, worker


def call(world: World, caller: Process, model: str) -> tuple[Record, Process]:
    """What `caller` executes calls a model, which begins."""
    assert caller.begun is not None
    return begin(world, caller, model, attempt=caller.begun.attempt)


def refused(world: World, caller: Process, model: str) -> str:
    """Why a call is refused."""
    assert caller.begun is not None
    record = world.ask(caller, infer(0, model, attempt=caller.begun.attempt), is_valid=False)
    (response,) = record.responses
    assert response.code == ErrorCode.INVALID_ARG
    return response.error


def reads(reader: Process, owner: Process) -> bool:
    """Whether a worker has been told of another's memory."""
    name = f"tidepool-s-{owner.token}-0"
    return name in reader.mapped or RegionOpened(name) in reader.inbox


def test_a_chain_of_calls_and_the_memory_of_all() -> None:
    world = started("a", "b", "c")
    _, a = begin(world, world.frontends[0], "a")
    _, b = call(world, a, "b")
    _, c = call(world, b, "c")
    assert reads(b, a)
    assert reads(a, b)
    assert reads(c, b)
    assert reads(b, c)
    for process in (c, b, a):
        world.finish(process)
        world.deliver(process)
    world.settle()
    world.check_settled()


def test_workers_that_come_later_are_read_and_read() -> None:
    world = started("a", "b")
    _, a = begin(world, world.frontends[0], "a")
    call(world, a, "b")
    world.describe(description("c"))
    (c,) = world.workers_of("c")
    world.boot(c)
    assert reads(a, c)
    assert reads(c, a)
    world.settle()
    world.check_settled()


def test_the_death_of_a_caller() -> None:
    world = started("a", "b")
    outer, a = begin(world, world.frontends[0], "a")
    inner, b = call(world, a, "b")
    world.bury(a)
    assert inner.is_orphan
    assert outer.responses[0].code == ErrorCode.UNAVAILABLE, "what has called others is not run again"
    assert RegionClosed(f"tidepool-s-{a.token}-0") in b.inbox
    world.settle()
    world.check_settled()


def test_the_death_of_a_called_worker_whose_answer_is_under_way() -> None:
    world = started("a", "b")
    _, a = begin(world, world.frontends[0], "a")
    _, b = call(world, a, "b")
    world.finish(b)
    world.bury(b)
    assert f"tidepool-s-{b.token}-0" in world.regions, "the caller has not read it"
    world.settle()
    world.check_settled()


def test_a_model_that_calls_itself() -> None:
    world = started("a")
    _, a = begin(world, world.frontends[0], "a")
    error = refused(world, a, "a")
    assert error == (
        "model 'a' cannot be called here: all its instances wait for models that wait for this call (a -> a)"
    )
    world.settle()
    world.check_settled()


def test_a_model_with_two_instances_may_call_itself_once() -> None:
    world = started("a", a=2)
    _, first = begin(world, world.frontends[0], "a")
    _, second = call(world, first, "a")
    assert second is not first
    assert "(a -> a)" in refused(world, second, "a")
    world.settle()
    world.check_settled()


def test_a_circle_of_three() -> None:
    world = started("a", "b", "c")
    _, a = begin(world, world.frontends[0], "a")
    _, b = call(world, a, "b")
    _, c = call(world, b, "c")
    assert "(a -> b -> c -> a)" in refused(world, c, "a")
    world.settle()
    world.check_settled()


def test_two_chains_that_meet() -> None:
    world = started("a", "b")
    _, a = begin(world, world.frontends[0], "a")
    _, b = begin(world, world.frontends[0], "b")
    assert a.begun is not None
    waiting = world.ask(a, infer(0, "b", attempt=a.begun.attempt))
    assert not waiting.worker
    assert "(a -> b -> a)" in refused(world, b, "a")
    world.finish(b)
    world.deliver(b)
    assert waiting.worker == b.token
    world.settle()
    world.check_settled()


@pytest.mark.parametrize("count", [1, 2])
def test_a_call_waits_for_an_instance_that_will_be_free(count: int) -> None:
    world = started("a", "b", b=count)
    _, a = begin(world, world.frontends[0], "a")
    busy = [begin(world, world.frontends[0], "b")[1] for _ in range(count)]
    assert a.begun is not None
    waiting = world.ask(a, infer(0, "b", attempt=a.begun.attempt))
    assert not waiting.worker
    world.finish(busy[-1])
    world.deliver(busy[-1])
    assert waiting.worker == busy[-1].token
    world.settle()
    world.check_settled()


def test_a_call_after_execute_has_returned_holds_nothing() -> None:
    world = started("a")
    outer = world.ask(world.frontends[0], infer(0, "a"))
    (a,) = world.workers
    world.begin(a)
    world.finish(a, part=Part.NONE)
    world.deliver(a)
    inner = world.ask(a, infer(0, "a"))
    assert inner.worker == a.token
    world.begin(a)
    world.finish(a)
    world.deliver(a)
    world.respond(a, outer.attempt, 0, COMPLETE)
    world.settle()
    world.check_settled()


def test_calls_are_answered_while_the_server_drains() -> None:
    world = started("a", "b")
    outer, a = begin(world, world.frontends[0], "a")
    world.apply(world.core.drain("SIGTERM", world.now))
    assert a.begun is not None
    world.say(a, infer(1, "b", attempt=a.begun.attempt, request_id=f"{a.token}/1"))
    world.records[f"{a.token}/1"] = inner = Record(a.token, infer(1, "b", request_id=f"{a.token}/1"), True)
    inner.version = world.core.models["b"].newest_ready()
    world.deliver(a)
    assert inner.worker
    world.settle()
    assert outer.responses[0].code == ErrorCode.OK
    assert world.exit_status == 0


def test_a_call_that_nobody_can_answer_any_more_after_scaling_down() -> None:
    world = started("a", a=2)
    frontend = world.frontends[0]
    _, first = begin(world, frontend, "a")
    begin(world, frontend, "a")
    assert first.begun is not None
    waiting = world.ask(first, infer(0, "a", attempt=first.begun.attempt))
    assert not waiting.is_answered, "the second instance could answer it"
    world.describe(description("a", count=1))
    world.advance(2.0)
    assert "(a -> a)" in waiting.responses[0].error
    world.settle()
    world.check_settled()


def test_an_instance_that_has_failed_will_not_answer_a_call() -> None:
    world = started("a")
    (first,) = world.workers
    world.describe(description("a", count=2))
    failing = world.workers[-1]
    world.greet(failing)
    world.hear(failing)
    world.load(failing, error="out of memory")
    begin(world, world.frontends[0], "a")
    assert "(a -> a)" in refused(world, first, "a")
    world.settle()
    world.check_settled()


def test_a_call_does_not_wait_for_the_response_that_waits_for_it() -> None:
    world = World()
    world.start(description("a", batching=batching(ordered=True), count=2))
    outer, first = begin(world, world.frontends[0], "a", shape=(1, 4))
    assert first.begun is not None
    inner, second = begin(world, first, "a", shape=(1, 4), attempt=first.begun.attempt)
    world.finish(second)
    world.deliver(second)
    assert inner.is_answered
    assert not outer.is_answered
    world.settle()
    world.check_settled()


def test_a_call_waits_for_an_instance_to_come_back_but_not_for_ever() -> None:
    world = World()
    world.start(description("a", count=2, config={"broken": True}))  # it cannot be loaded again
    _, first = begin(world, world.frontends[0], "a")
    assert first.begun is not None
    world.bury(next(worker for worker in world.workers_of("a") if worker is not first))
    waiting = world.ask(first, infer(0, "a", attempt=first.begun.attempt))
    until = world.now + OUTAGE_SECONDS
    while not waiting.is_answered:
        assert world.now < until + 2
        for worker in world.workers_of("a"):
            if worker is not first:
                world.turn(worker)
        world.advance(0.5)
    assert world.now > until
    assert "(a -> a)" in waiting.responses[0].error
    world.settle()
    world.check_settled()


def test_a_call_waits_for_an_instance_that_loads_for_long() -> None:
    world = World()
    world.start(description("a", count=2))
    outer, first = begin(world, world.frontends[0], "a")
    assert first.begun is not None
    world.bury(next(worker for worker in world.workers_of("a") if worker is not first))
    (fresh,) = [worker for worker in world.workers_of("a") if worker is not first]
    world.greet(fresh)
    waiting = world.ask(first, infer(0, "a", attempt=first.begun.attempt))
    world.advance(2 * OUTAGE_SECONDS)
    assert not waiting.is_answered
    world.settle()
    assert [record.responses[0].code for record in (waiting, outer)] == [ErrorCode.OK] * 2
