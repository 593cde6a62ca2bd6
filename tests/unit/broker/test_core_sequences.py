"""Sequences in the core: what becomes of them when clients, workers, frontends and configurations come and go."""

from typing import Any

import pytest

from broker.messages import COMPLETE, ErrorCode, Executed, Part, Response, Result
from configs.description import ModelDescription
from tests.unit.broker.describe import description, infer, instances
from tests.unit.broker.sequences import END, START, settings
from tests.unit.broker.world import Process, Record, World


def sequential(count: int = 1, slots: int = 2, **changes: Any) -> ModelDescription:
    """A model `a` with sequences; `batching` are more of their settings."""
    batching = changes.pop("batching", {})
    return description(
        "a",
        instances=instances("a", count),
        max_batch_size=slots,
        sequence_batching=settings(slots, **batching),
        **changes,
    )


def started(*descriptions: ModelDescription, **settings: Any) -> World:
    world = World({"http": 2}, **settings)
    world.start(*descriptions)
    return world


def ask(world: World, identity: int, flags: int = 0, frontend: int = 0) -> Record:
    return world.ask(world.frontends[frontend], infer(0, "a", (1, 4), correlation_id=identity, flags=flags))


def refused(world: World, identity: int, flags: int = 0) -> Response:
    request = infer(0, "a", (1, 4), correlation_id=identity, flags=flags)
    (response,) = world.ask(world.frontends[0], request, is_valid=False).responses
    return response


def execute(world: World, worker: Process, part: int = COMPLETE) -> None:
    world.begin(worker)
    world.finish(worker, part=part)
    world.deliver(worker)


def test_a_request_that_is_refused_is_not_counted() -> None:
    world = started(sequential())
    response = refused(world, 5)
    assert (response.code, response.part) == (ErrorCode.INVALID_ARG, Part.FINAL)
    assert world.core.models["a"].versions[1].statistics.fail.count == 0


def test_a_sequence_that_begins_anew_is_logged() -> None:
    world = started(sequential())
    ask(world, 1, START)
    ask(world, 1, START)
    ask(world, 1)
    assert len([line for line in world.log if "sequence 1 for model 'a' has a conflict" in line]) == 1


def test_rows_of_nobody_count_in_the_size_of_the_batch_only() -> None:
    world = started(sequential())
    (worker,) = world.workers
    ask(world, 1, START)
    ask(world, 2, START)
    execute(world, worker)
    execute(world, worker)
    version = world.core.models["a"].versions[1]
    version.statistics.settle()
    assert {size: stats.compute_infer.count for size, stats in version.statistics.batches.items()} == {1: 1, 2: 1}
    assert version.statistics.inference_count == 2
    assert version.executing == 0


def test_a_worker_that_dies_with_a_row_of_nobody_leaves_nothing_behind() -> None:
    world = started(sequential())
    (worker,) = world.workers
    ask(world, 1, START)
    ask(world, 2, START)
    execute(world, worker)
    world.begin(worker)
    world.bury(worker)
    world.settle()
    world.check_settled()


@pytest.mark.parametrize("way", ["client", "frontend"])
def test_what_is_cancelled_takes_what_is_behind_it_along(way: str) -> None:
    world = started(sequential(slots=1))
    (worker,) = world.workers
    first = ask(world, 1, START, frontend=1)
    second, third = ask(world, 1), ask(world, 1, frontend=1)
    other = ask(world, 2, START | END, frontend=1)
    third.allowed.add(ErrorCode.CANCELLED)
    if way == "client":
        world.cancel(second)
    else:
        world.bury(world.frontends[0])
    world.advance(0.0)
    assert third.is_answered
    execute(world, worker)
    assert first.is_answered
    execute(world, worker)
    assert other.responses[-1].code == ErrorCode.OK


def test_nothing_of_a_sequence_is_executed_twice() -> None:
    world = started(sequential())
    (worker,) = world.workers
    record = ask(world, 1, START)
    world.begin(worker)
    world.bury(worker, is_outside=True)
    assert record.responses[-1].code == ErrorCode.UNAVAILABLE
    assert "which had its state, died" in refused(world, 1).error


def test_a_sequence_that_had_not_begun_goes_to_the_next_worker() -> None:
    world = started(sequential())
    record = ask(world, 1, START)
    world.bury(world.workers[0])
    world.settle(1.0)
    assert record.responses[-1].code == ErrorCode.OK


def test_an_instance_that_goes_stays_for_its_sequences() -> None:
    world = started(sequential(2, slots=1, batching={"idle": 50.0}))
    first, second = world.workers
    ask(world, 1, START)
    ask(world, 2, START)
    execute(world, first)
    execute(world, second)
    world.describe(sequential(1, slots=1, batching={"idle": 50.0}))
    record = ask(world, 2)
    assert record.worker == second.token
    execute(world, second)
    ask(world, 1, END)
    execute(world, first)
    assert ask(world, 3, START).worker == first.token, "new ones go elsewhere"
    world.settle(30.0)
    assert second in world.workers
    world.settle(30.0)
    assert world.workers == [first], "it was idle for too long"


def test_a_retired_version_finishes_what_is_queued_and_no_more() -> None:
    world = started(sequential(slots=1, batching={"idle": 1000.0}))
    (old,) = world.workers
    ask(world, 1, START)
    execute(world, old)
    waiting = ask(world, 2, START)
    world.describe(sequential(slots=1, batching={"idle": 1000.0}, fingerprint="b"))
    (new,) = [worker for worker in world.workers if worker is not old]
    world.boot(new)
    assert waiting.worker == old.token, "nothing can join the sequence that had the slot"
    execute(world, old)
    world.settle(5.0)
    assert world.workers == [new]
    assert "the model was loaded anew" in refused(world, 1).error


def test_sequences_may_end_before_the_server_does() -> None:
    world = started(sequential(slots=1, batching={"idle": 1000.0}))
    (worker,) = world.workers
    ask(world, 1, START)
    execute(world, worker)
    world.apply(world.core.drain("received SIGTERM", world.now))
    world.settle(5.0)
    request = infer(0, "a", (1, 4), correlation_id=2, flags=START)
    (response,) = world.ask(world.frontends[0], request, is_valid=False).responses
    assert response.code == ErrorCode.UNAVAILABLE
    frontend = world.frontends[0]
    message = infer(77, "a", (1, 4), correlation_id=1, flags=END, request_id=f"{frontend.token}/77", received=world.now)
    record = world.records[message.request_id] = Record(frontend.token, message, True)
    record.version = world.core.models["a"].versions[1]
    world.say(frontend, message)
    world.deliver(frontend)
    execute(world, worker)
    assert record.is_answered
    world.settle(5.0)
    assert world.exit_status == 0


# ------------------------------------------------------------------------------------------- iterative


def again(world: World, worker: Process) -> None:
    """A model wants its requests once more."""
    execute = world.begin(worker)
    worker.begun = None
    result = Result(ErrorCode.OK, "", (), {}, Part.AGAIN)
    now = int(world.now * 1e9)
    for item in execute.items:
        worker.holding.discard(item.request_id)
        world.records[item.request_id].worker = ""
    world.say(worker, Executed(execute.attempt, (result,) * len(execute.items), (now, now, now, now)))
    world.deliver(worker)


def test_an_iterative_request_is_executed_until_its_model_answers() -> None:
    world = started(sequential(batching={"is_iterative": True}))
    (worker,) = world.workers
    record = world.ask(world.frontends[0], infer(0, "a", (1, 4), flags=START))
    for _ in range(3):
        again(world, worker)
    assert not record.is_answered
    execute(world, worker)
    assert record.responses[-1].code == ErrorCode.OK
    statistics = world.core.models["a"].versions[1].statistics
    statistics.settle()
    assert (statistics.inference_count, statistics.execution_count) == (1, 4)


def test_a_client_that_goes_ends_the_rounds() -> None:
    world = started(sequential(batching={"is_iterative": True}))
    (worker,) = world.workers
    record = world.ask(world.frontends[0], infer(0, "a", (1, 4), flags=START))
    again(world, worker)
    world.begin(worker)
    world.cancel(record)
    begun, worker.begun = worker.begun, None
    assert begun is not None
    worker.holding.clear()
    record.worker = ""
    result = Result(ErrorCode.OK, "", (), {}, Part.AGAIN)
    now = int(world.now * 1e9)
    world.say(worker, Executed(begun.attempt, (result,), (now, now, now, now)))
    world.deliver(worker)
    assert record.responses[-1].code == ErrorCode.CANCELLED


def test_only_iterative_requests_are_executed_again() -> None:
    world = started(sequential())
    (worker,) = world.workers
    ask(world, 1, START)
    again(world, worker)
    assert worker.is_doomed


# ------------------------------------------------------------------------------------------- calls


def test_a_model_that_calls_its_own_sequence_is_told_so() -> None:
    world = started(sequential(2, slots=1))
    first, _ = world.workers
    ask(world, 1, START)
    begun = world.begin(first)
    call = world.ask(first, infer(0, "a", (1, 4), correlation_id=1, attempt=begun.attempt))
    assert call.responses[-1].code == ErrorCode.INVALID_ARG
    assert "cannot be called here" in call.responses[-1].error
