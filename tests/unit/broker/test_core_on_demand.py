"""The core in mode on-demand: requests wait while their model is loaded, models leave, nobody is forgotten."""

from dataclasses import replace
from typing import Any

import pytest

from broker.control import Control
from broker.messages import (
    ErrorCode,
    Executed,
    GetModelReady,
    GetRepositoryIndex,
    Loaded,
    MemorySampled,
    Message,
    Response,
    Result,
    Sample,
)
from broker.models import ASLEEP, Version, VersionState
from broker.on_demand import RETRY_SECONDS
from broker.requests import OUTAGE_SECONDS
from broker.residency import WAIT_SECONDS, Phase
from configs.description import EnsembleStep
from shm.ref import TensorRef
from tests.unit.broker.describe import batching, description, infer, instances
from tests.unit.broker.sequences import END, START
from tests.unit.broker.sequences import settings as sequences
from tests.unit.broker.world import Process, Record, World

MIB = 2**20


def world(*models: str, **settings: Any) -> World:
    """A server in mode on-demand with these models of one instance."""
    found = World(**{"model_control_mode": "on-demand", **settings})
    found.start(*[description(name, instances=instances(name, 1)) for name in models])
    return found


def ask(world: World, model: str = "m", **changes: Any) -> Record:
    """A request arrives whose model may have to be loaded."""
    (http,) = world.of("http")
    return world.ask(http, infer(0, model, **changes))


def ask_failed(world: World, model: str = "m") -> Record:
    """A request arrives for a model that has failed to load."""
    (http,) = world.of("http")
    world.numbers += 1
    request = infer(world.numbers, model, received=world.now, request_id=f"{http.token}/{world.numbers}")
    record = world.records[request.request_id] = Record(http.token, request, True)
    world.say(http, request)
    world.deliver(http)
    return record


def refused(world: World, model: str = "m") -> Record:
    """A request arrives that is refused at once."""
    (http,) = world.of("http")
    return world.ask(http, infer(0, model), is_valid=False)


def version(world: World, model: str = "m") -> Version:
    """The only version of a model."""
    (only,) = world.core.models[model].versions.values()
    return only


def finish(world: World, worker: Process) -> None:
    """A worker executes what it was given."""
    world.begin(worker)
    world.finish(worker)
    world.deliver(worker)


def sample(world: World, size: int) -> None:
    """Every worker has so many bytes."""
    (repository,) = world.of("repository")
    for number, worker in enumerate(world.workers, start=5000):
        world.core.fleet.workers[worker.token].pid = number
    pss = {number: size for number, _ in enumerate(world.workers, start=5000)}
    world.say(repository, MemorySampled(pss, {}, {}))
    world.deliver(repository)


def fail_load(world: World) -> None:
    """The only worker says that its model cannot be loaded, and ends."""
    (worker,) = world.workers
    world.greet(worker)
    world.hear(worker)
    world.load(worker, error="no such file")
    world.bury(worker)


def bury_stopped(world: World) -> None:
    """Those that were told to stop do."""
    for worker in world.workers:
        world.hear(worker)
        if worker.is_told_to_stop:
            world.bury(worker)


def serve(world: World, model: str) -> Record:
    """A request that has its model loaded and executed."""
    record = ask(world, model)
    (worker,) = world.workers_of(model)
    if not worker.is_loaded:
        world.boot(worker)
    finish(world, worker)
    assert record.is_answered
    return record


def test_nothing_is_loaded_at_the_start_and_everything_is_known() -> None:
    there = world("a", "b")
    assert not there.workers
    assert there.core.is_ready
    assert version(there, "a").is_ready
    control: Control = there.core.control
    control.listed = ("a", "b")
    rows = control.index(GetRepositoryIndex(1, True))
    assert rows[0] == {"name": "a", "version": "1", "state": "READY", "reason": ASLEEP}


def test_the_first_request_has_the_model_loaded_and_waits() -> None:
    there = world("m")
    first, second = ask(there), ask(there)
    (worker,) = there.workers
    assert not first.is_answered
    there.boot(worker)
    finish(there, worker)
    finish(there, worker)
    assert first.responses[0].code == second.responses[0].code == ErrorCode.OK
    there.settle()
    there.check_settled()


def test_a_request_is_looked_at_only_when_the_model_has_said_what_it_takes() -> None:
    there = World(model_control_mode="on-demand")
    there.start(description("m", inputs=(), outputs=()))
    record = ask(there)
    (worker,) = there.workers
    there.greet(worker)
    there.hear(worker)
    inputs = (("IN", "FP32", (-1,)),)
    there.say(worker, Loaded(inputs, (("OUT", "FP32", (-1,)),), {}, False))
    there.deliver(worker)
    worker.load = None
    finish(there, worker)
    assert record.responses[0].code == ErrorCode.OK
    (http,) = there.of("http")
    wrong = there.ask(http, infer(0, shape=(2, 2)), is_valid=False)
    assert wrong.responses[0].code == ErrorCode.INVALID_ARG


def test_a_load_that_fails_answers_those_that_wait_and_is_tried_again_later() -> None:
    there = world("m")
    record = ask(there)
    fail_load(there)
    (refusal,) = record.responses
    assert refusal.code == ErrorCode.UNAVAILABLE
    assert "load failed for model 'm': version 1 is at UNAVAILABLE state: Internal: no such file" in refusal.error
    assert there.core.is_ready
    assert not version(there).is_ready
    again = ask_failed(there)
    fail_load(there)
    assert again.is_answered
    assert "load failed" in refused(there).responses[0].error, "not tried again at once"
    there.advance(RETRY_SECONDS + 1)
    record = ask_failed(there)
    record.version = version(there)
    (worker,) = there.workers
    there.boot(worker)
    assert version(there).state is VersionState.READY


def test_a_worker_that_dies_while_it_loads_is_a_load_that_fails() -> None:
    there = world("m")
    record = ask(there)
    (worker,) = there.workers
    there.greet(worker)
    there.bury(worker, is_outside=True)
    assert "the worker died while loading" in record.responses[0].error


def test_an_idle_model_leaves_and_comes_back() -> None:
    there = world("m", model_idle_ttl=5.0)
    serve(there, "m")
    there.advance(4.0)
    assert len(there.workers) == 1
    there.advance(3.0)
    bury_stopped(there)
    assert not there.workers
    assert version(there).is_ready
    there.advance(OUTAGE_SECONDS + 5)
    assert serve(there, "m").responses[0].code == ErrorCode.OK


def test_one_that_executes_is_not_idle() -> None:
    there = world("m", model_idle_ttl=5.0)
    serve(there, "m")
    record = ask(there)
    (worker,) = there.workers
    there.begin(worker)
    there.advance(20.0)
    there.hear(worker)
    assert not worker.is_told_to_stop
    there.finish(worker)
    there.deliver(worker)
    assert record.responses[0].code == ErrorCode.OK


def test_a_sequence_keeps_its_model_in_memory() -> None:
    there = World(model_control_mode="on-demand", model_memory_budget=150 * MIB)
    there.start(description("s", sequence_batching=sequences(1, 60.0)), description("m"))
    (http,) = there.of("http")
    record = there.ask(http, infer(0, "s", correlation_id=5, flags=START))
    (worker,) = there.workers
    there.boot(worker)
    finish(there, worker)
    sample(there, 150 * MIB)
    ask(there, "m")
    there.advance(10.0)
    there.hear(worker)
    assert not worker.is_told_to_stop
    last = there.ask(http, infer(0, "s", correlation_id=5, flags=END))
    finish(there, worker)
    assert record.responses[0].code == last.responses[0].code == ErrorCode.OK
    there.advance(1.0)
    there.hear(worker)
    assert worker.is_told_to_stop


def test_a_pinned_model_loads_at_the_start_and_stays() -> None:
    there = World(model_control_mode="on-demand", model_idle_ttl=1.0)
    there.start(description("p", parameters={"pinned": "true"}), description("m", parameters={"idle_ttl": "0"}))
    assert len(there.workers_of("p")) == 1
    serve(there, "m")
    there.advance(10.0)
    bury_stopped(there)
    assert len(there.workers) == 2


def test_the_least_recently_used_makes_room_within_the_budget() -> None:
    there = world("a", "b", "c", model_memory_budget=250 * MIB)
    for model in ("a", "b", "c"):
        serve(there, model)
        there.advance(0.3)
        sample(there, 100 * MIB)
        there.advance(0.3)
        bury_stopped(there)
    assert not there.workers_of("a")
    assert [len(there.workers_of(model)) for model in ("b", "c")] == [1, 1]
    record = ask(there, "a")
    assert not there.workers_of("a"), "its size is known: it waits until the memory is free"
    bury_stopped(there)
    there.advance(0.1)
    assert len(there.workers_of("a")) == 1
    assert not there.workers_of("b")
    there.boot(*there.workers_of("a"))
    finish(there, *there.workers_of("a"))
    assert record.responses[0].code == ErrorCode.OK


def test_what_cannot_fit_is_refused_once_it_was_measured() -> None:
    there = world("m", model_memory_budget=50 * MIB)
    serve(there, "m")
    sample(there, 80 * MIB)
    there.advance(1.0)
    bury_stopped(there)
    record = refused(there)
    assert record.responses[0].code == ErrorCode.UNAVAILABLE
    assert "it takes 80.0 MiB of memory, and the budget is 50.0 MiB" in record.responses[0].error


def test_nobody_waits_for_ever_for_room() -> None:
    there = World(model_control_mode="on-demand", model_memory_budget=150 * MIB)
    there.start(description("p", parameters={"pinned": "true"}), description("m"))
    sample(there, 150 * MIB)
    record = ask(there)
    there.advance(WAIT_SECONDS - 1)
    assert not record.is_answered
    there.advance(2)
    assert record.responses[0].code == ErrorCode.UNAVAILABLE
    assert "there was no room for it within 30 s" in record.responses[0].error
    there.settle()
    there.check_settled()


def test_one_that_fails_to_load_takes_no_room() -> None:
    there = world("a", "b", model_memory_budget=150 * MIB)
    serve(there, "a")
    sample(there, 100 * MIB)
    there.core.fleet.set_count(version(there, "a"), 0, there.now)
    there.advance(1.1)
    bury_stopped(there)
    ask(there, "a")
    fail_load(there)
    assert version(there, "a").state is VersionState.UNAVAILABLE
    (tenant,) = there.core.on_demand.census.tenants()
    assert (tenant.phase, tenant.used) == (Phase.LEAVING, {})
    assert serve(there, "b").responses[0].code == ErrorCode.OK


def test_memory_is_measured_soon_after_a_load_when_there_is_a_budget() -> None:
    there = world("m", model_memory_budget=50 * MIB, metrics_interval_ms=60000.0)
    (repository,) = there.of("repository")
    there.advance(1.5)
    repository.inbox.clear()
    serve(there, "m")
    there.advance(0.5)
    assert any(isinstance(message, Sample) for message in repository.inbox)
    sample(there, 10 * MIB)
    repository.inbox.clear()
    there.advance(3.0)
    assert not repository.inbox, "what is known is not measured again and again"


def test_a_client_that_goes_is_not_waited_for() -> None:
    there = world("m")
    record = ask(there)
    there.cancel(record)
    assert record.responses[0].code == ErrorCode.CANCELLED


def test_a_frontend_that_dies_takes_its_requests_with_it() -> None:
    there = world("m")
    ask(there)
    there.bury(*there.of("http"))
    there.settle()
    there.check_settled()


def test_a_number_that_waits_cannot_be_used_again() -> None:
    there = world("m")
    record = ask(there)
    (http,) = there.of("http")
    there.say(http, record.infer)
    there.deliver(http)
    assert http.is_doomed


def test_the_end_of_the_server_refuses_what_waits() -> None:
    there = world("m")
    record = ask(there)
    there.apply(there.core.drain("test", there.now))
    assert "Server is stopping" in record.responses[0].error
    there.settle()
    assert there.exit_status == 0


def test_a_model_that_is_edited_while_it_sleeps_is_loaded_as_it_is_then() -> None:
    there = world("m", model_idle_ttl=1.0)
    serve(there, "m")
    there.advance(3.0)
    bury_stopped(there)
    there.describe(description("m", fingerprint="b"))
    assert not there.workers
    assert version(there).is_unread
    assert serve(there, "m").responses[0].code == ErrorCode.OK


def test_a_model_that_is_edited_in_memory_serves_until_the_new_one_is_ready() -> None:
    there = world("m")
    serve(there, "m")
    there.describe(description("m", fingerprint="b"))
    assert len(there.workers) == 2
    old = next(worker for worker in there.workers if worker.is_loaded)
    ask(there)
    finish(there, old)


def test_a_model_that_is_removed_while_requests_wait_refuses_them() -> None:
    there = world("m")
    record = ask(there)
    there.remove("m")
    there.advance(0.1)
    assert record.responses[0].code == ErrorCode.UNAVAILABLE
    there.settle()
    there.check_settled()


def ensemble(*parts: str) -> Any:
    """A chain of models."""
    names = ["IN", *[f"t{number}" for number in range(1, len(parts))], "OUT"]
    steps = tuple(
        EnsembleStep(part, -1, (("IN", before),), (("OUT", after),))
        for part, before, after in zip(parts, names, names[1:], strict=False)
    )
    return description("e", backend="", platform="ensemble", instances=(), steps=steps)


class Loose(World):
    """A world that does not know of ensembles: it takes what it is sent."""

    def _check_sent(self, process: Process, message: Message) -> None:
        if isinstance(message, Response):
            self.records[f"{process.token}/{message.request}"].responses.append(message)


def with_ensemble(*parts: str, **settings: Any) -> Loose:
    """Models, and an ensemble of them."""
    there = Loose(model_control_mode="on-demand", **settings)
    there.start(*[description(name, instances=instances(name, 1)) for name in parts], ensemble(*parts))
    return there


def do_step(world: World, model: str) -> None:
    """The only worker of a model answers."""
    (worker,) = world.workers_of(model)
    execute = world.begin(worker)
    worker.begun = None
    ref = TensorRef("OUT", "FP32", (4,), 16, bytes(16))
    end = int(world.now * 1e9)
    world.say(worker, Executed(execute.attempt, (Result(ErrorCode.OK, "", (ref,), {}),), (end, end, end, end)))
    world.deliver(worker)


def test_an_ensemble_has_its_models_loaded() -> None:
    there = with_ensemble("a", "b", model_idle_ttl=5.0)
    assert version(there, "e").is_ready
    record = ask(there, "e")
    assert len(there.workers_of("a")) == len(there.workers_of("b")) == 1
    assert not record.is_answered
    for worker in there.workers:
        there.boot(worker)
    do_step(there, "a")
    do_step(there, "b")
    assert record.responses[0].code == ErrorCode.OK
    there.advance(8.0)
    bury_stopped(there)
    assert not there.workers
    record = ask(there, "e")
    assert [len(there.workers_of(name)) for name in "ab"] == [1, 0], "now each step has its model loaded"
    there.boot(*there.workers_of("a"))
    do_step(there, "a")
    there.advance(0.1)
    there.boot(*there.workers_of("b"))
    do_step(there, "b")
    assert record.responses[0].code == ErrorCode.OK


def test_an_ensemble_whose_model_was_edited_waits_until_that_has_been_read() -> None:
    there = with_ensemble("a")
    ask(there, "e")
    there.boot(*there.workers)
    do_step(there, "a")
    there.core.fleet.set_count(version(there, "a"), 0, there.now)
    there.advance(1.1)
    bury_stopped(there)
    there.describe(description("a", instances=instances("a", 1), fingerprint="b"))
    record = ask(there, "e")
    assert len(there.workers) == 1
    there.boot(*there.workers)
    do_step(there, "a")
    assert record.responses[0].code == ErrorCode.OK


def test_an_ensemble_whose_model_cannot_be_loaded_says_so_and_is_tried_again() -> None:
    there = with_ensemble("a")
    record = ask(there, "e")
    fail_load(there)
    assert record.responses[0].code == ErrorCode.UNAVAILABLE
    assert "no such file" in record.responses[0].error
    record = ask_failed(there, "e")
    there.boot(*there.workers)
    do_step(there, "a")
    assert record.responses[0].code == ErrorCode.OK


def test_readiness_does_not_ask_a_model_that_sleeps() -> None:
    there = world("m", model_idle_ttl=1.0)
    ask(there)
    (worker,) = there.workers
    there.greet(worker)
    there.hear(worker)
    worker.load = None
    there.say(worker, Loaded((), (), {}, True))
    there.deliver(worker)
    finish(there, worker)
    there.advance(3.0)
    bury_stopped(there)
    (http,) = there.of("http")
    there.say(http, GetModelReady(7, "m", -1))
    there.deliver(http)
    assert http.inbox[-1].content == {"ready": True}  # type: ignore[union-attr]


# ----------------------------------------------------------------------------------------------- ranges of counts


def ranged(**more: str) -> Any:
    """A model that may have up to four instances."""
    return description("m", count=1, batching=batching(1), parameters={"max_count": "4", **more})


def busy_for(there: World, seconds: float) -> None:
    """More requests than the model can do."""
    (http,) = there.of("http")
    for _ in range(60):
        there.ask(http, infer(0, shape=(8, 4)))
    end = there.now + seconds
    while there.now < end:
        there.advance(0.5)
        for worker in there.workers:
            if not worker.has_greeted:
                there.boot(worker)


def test_the_count_follows_the_load_within_its_range() -> None:
    there = World()
    there.start(ranged())
    busy_for(there, 12.0)
    assert len(there.workers) == 4
    there.settle(seconds=100.0)
    assert len(there.workers) == 1
    assert not there.open_records()


def test_an_edit_counts_at_once_and_one_outside_of_the_range_stays() -> None:
    there = World()
    there.start(ranged())
    there.describe(description("m", count=3, batching=batching(1), parameters={"max_count": "4"}))
    assert len(there.workers) == 3
    there.settle(seconds=30.0)
    assert len(there.workers) == 3
    there.settle(seconds=60.0)
    assert len(there.workers) == 1
    there.describe(description("m", count=6, batching=batching(1), parameters={"max_count": "4"}))
    there.settle(seconds=100.0)
    assert len(there.workers) == 6


def test_other_edits_leave_the_count() -> None:
    there = World()
    there.start(ranged())
    busy_for(there, 12.0)
    there.describe(description("m", count=1, batching=batching(2), parameters={"max_count": "4"}))
    assert len(there.workers) == 4
    there.settle()


def test_a_reload_begins_with_as_many_instances_as_there_were() -> None:
    there = World()
    there.start(ranged())
    busy_for(there, 12.0)
    there.describe(replace(ranged(), fingerprint="b"))
    assert len(there.workers) == 8
    there.settle(seconds=5.0)
    assert len(there.workers) == 4


def test_a_range_from_zero_lets_a_model_leave_in_any_mode() -> None:
    there = World()
    there.start(ranged(min_count="0", idle_ttl="3"))
    assert len(there.workers) == 1
    there.settle(seconds=6.0)
    assert not there.workers
    assert there.core.is_ready
    (http,) = there.of("http")
    record = there.ask(http, infer(0, shape=(1, 4)))
    there.settle(seconds=1.0)
    assert record.responses[0].code == ErrorCode.OK


@pytest.mark.parametrize(("limit", "count"), [(0, 4), (250, 2)])
def test_the_count_stays_within_the_budget(limit: int, count: int) -> None:
    there = World(model_memory_budget=limit * MIB)
    there.start(ranged())
    sample(there, 100 * MIB)
    busy_for(there, 12.0)
    assert len(there.workers) == count
    there.settle()
