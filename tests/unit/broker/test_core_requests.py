"""Requests whose frontends and workers die, whose clients go away, whose models change under them."""

from broker.messages import ErrorCode, Part
from broker.requests import OUTAGE_SECONDS
from configs.description import DynamicBatching, QueuePolicy
from tests.unit.broker.describe import batching, description, infer
from tests.unit.broker.world import Process, World


def test_nothing_is_sent_to_a_dead_frontend_when_its_requests_are_in_order() -> None:
    world = World()
    world.start(description("a", batching=batching(ordered=True)))
    frontend = world.frontends[0]
    world.ask(frontend, infer(0, "a", (8, 4)))  # at the worker, which does not begin
    world.ask(frontend, infer(0, "a", (8, 4)))  # in the queue
    last = world.ask(frontend, infer(0, "a", (8, 4)))
    world.cancel(last)  # its response waits for those before it
    world.bury(world.workers[0])
    world.bury(frontend)
    world.settle()
    world.check_settled()


def test_requests_that_were_queued_without_batching_are_batched_by_their_shapes() -> None:
    world = World()
    world.start(description("a", max_batch_size=8))
    frontend = world.frontends[0]
    world.ask(frontend, infer(0, "a", (1, 4)))  # keeps the worker busy
    world.ask(frontend, infer(0, "a", (1, 4)))
    world.ask(frontend, infer(0, "a", (1, 5)))
    world.describe(description("a", batching=batching()))
    world.settle()
    world.check_settled()


def policies(*levels: QueuePolicy, delay: float = 0.0) -> DynamicBatching:
    """Batches of one, and these levels from 1 on."""
    return DynamicBatching((1,), delay, False, len(levels), dict(enumerate(levels, start=1)))


def test_what_waits_keeps_its_timeout_and_its_priority_when_its_model_gets_other_settings() -> None:
    world = World()
    brief = QueuePolicy(default_timeout=30.0, allow_timeout_override=True)
    world.start(description("a", batching=policies(brief, brief), max_batch_size=1))
    frontend, (worker,) = world.frontends[0], world.workers
    world.ask(frontend, infer(0, "a", (1, 4)))
    world.begin(worker)
    own = world.ask(frontend, infer(0, "a", (1, 4), priority=1, timeout_us=5_000_000))
    own.allowed.add(ErrorCode.UNAVAILABLE)
    late = world.ask(frontend, infer(0, "a", (1, 4), priority=3))
    early = world.ask(frontend, infer(0, "a", (1, 4), priority=1))
    world.advance(3.0)
    world.describe(description("a", batching=policies(brief, brief, QueuePolicy()), max_batch_size=1))
    world.advance(1.9)
    assert not own.is_answered
    world.advance(0.2)
    assert own.responses[0].error == "Request timeout expired"
    world.finish(worker)
    world.deliver(worker)
    (item,) = world.begin(worker).items
    assert item.request_id == early.infer.request_id, "though it came later"
    world.advance(60.0)
    assert not late.is_answered, "its level is a new one, without a timeout"


def test_other_settings_count_at_once_for_what_waits() -> None:
    world = World()
    world.start(description("a", batching=batching(delay=100.0)))
    record = world.ask(world.frontends[0], infer(0, "a", (1, 4)))
    assert not record.worker
    world.describe(description("a", batching=batching()))
    assert record.worker


def test_a_timeout_that_is_new_counts_for_what_waits_behind_a_long_execution() -> None:
    world = World()
    world.start(description("a", batching=policies(QueuePolicy()), max_batch_size=1))
    frontend, (worker,) = world.frontends[0], world.workers
    world.ask(frontend, infer(0, "a", (1, 4)))
    world.begin(worker)
    waiting = world.ask(frontend, infer(0, "a", (1, 4)))
    waiting.allowed.add(ErrorCode.UNAVAILABLE)
    world.advance(1.0)
    world.describe(description("a", batching=policies(QueuePolicy(default_timeout=5.0)), max_batch_size=1))
    world.advance(3.9)
    assert not waiting.is_answered
    world.advance(0.2)
    assert waiting.responses[0].error == "Request timeout expired"


def test_what_came_back_from_a_dead_worker_stays_first_when_its_model_gets_other_settings() -> None:
    world = World()
    world.start(description("a", batching=policies(QueuePolicy(), QueuePolicy()), max_batch_size=1))
    frontend = world.frontends[0]
    back = world.ask(frontend, infer(0, "a", (1, 4), priority=2))
    world.ask(frontend, infer(0, "a", (1, 4), priority=1))
    world.bury(world.workers[0])
    world.describe(description("a", batching=policies(QueuePolicy(default_timeout=0.001)), max_batch_size=1))
    world.boot(world.workers[0])
    assert back.worker


def test_a_response_that_waits_for_its_turn_can_be_read_after_the_death_of_its_worker() -> None:
    world = World()
    world.start(description("a", batching=batching(ordered=True), count=2))
    frontend = world.frontends[0]
    late = world.ask(frontend, infer(0, "a", (8, 4)))
    early = world.ask(frontend, infer(0, "a", (8, 4)))
    slow, quick = (world.processes[record.worker] for record in (late, early))
    world.begin(slow)
    world.begin(quick)
    world.finish(quick)
    world.bury(quick)
    world.finish(slow)
    world.settle()
    assert early.responses[0].outputs, "its output lies in the memory of the dead worker"
    world.check_settled()


def test_a_stream_ends_with_its_worker() -> None:
    world = World()
    world.start(description("a", decoupled=True))
    record = world.ask(world.frontends[0], infer(0, "a"))
    (worker,) = world.workers
    execute = world.begin(worker)
    world.finish(worker, part=Part.NONE)
    world.respond(worker, execute.attempt, 0, Part.CONTENT)
    world.deliver(worker)
    assert [response.part for response in record.responses] == [Part.CONTENT]
    world.bury(worker)
    assert record.responses[-1].code == ErrorCode.UNAVAILABLE
    world.settle()
    world.check_settled()


def test_a_stream_whose_execution_returns_with_a_response_stays_open() -> None:
    world = World()
    world.start(description("a", decoupled=True))
    record = world.ask(world.frontends[0], infer(0, "a"))
    (worker,) = world.workers
    execute = world.begin(worker)
    world.finish(worker, part=Part.CONTENT)
    world.deliver(worker)
    assert not record.is_answered
    worker.holding.add(record.infer.request_id)
    worker.open_items[execute.attempt, 0] = record.infer.request_id
    world.settle()
    world.check_settled()


def test_what_a_dead_worker_held_goes_to_another_at_once() -> None:
    world = World()
    world.start(description("a", count=2))
    record = world.ask(world.frontends[0], infer(0, "a"))
    first = record.worker
    world.bury(world.processes[first])
    assert record.worker not in ("", first)


def test_a_request_that_met_a_death_runs_alone_and_its_batch_mates_do_not_suffer_again() -> None:
    world = World()
    world.start(description("a", batching=batching()))
    frontend = world.frontends[0]
    first = world.ask(frontend, infer(0, "a", (1, 4)))
    mates = [world.ask(frontend, infer(0, "a", (1, 4))) for _ in range(3)]
    (worker,) = world.workers
    world.begin(worker)
    world.finish(worker)
    world.deliver(worker)
    assert first.is_answered
    assert len(world.begin(worker).items) == 3
    world.bury(worker)
    for _ in range(3):
        (worker,) = world.workers
        if worker.load is None and not worker.has_greeted:
            world.boot(worker)
        assert len(world.begin(worker).items) == 1
        world.finish(worker)
        world.deliver(worker)
    assert all(mate.responses[0].code == ErrorCode.OK for mate in mates)


def test_a_request_survives_one_crash_and_three_kills() -> None:
    for is_outside, deaths in ((False, 1), (True, 3)):
        world = World()
        world.start(description("a"))
        record = world.ask(world.frontends[0], infer(0, "a"))
        for _ in range(deaths):
            world.begin(world.workers[0])
            world.bury(world.workers[0], is_outside=is_outside)
            while not world.workers:
                world.advance(0.5)
            world.boot(world.workers[0])
            assert not record.is_answered
        world.begin(world.workers[0])
        world.bury(world.workers[0], is_outside=is_outside)
        assert record.responses[0].code == ErrorCode.UNAVAILABLE
        assert "the worker of instance 'a_0_0' died while executing the request" in record.responses[0].error


def test_a_broker_that_waits_for_a_busy_worker_does_not_spin() -> None:
    world = World()
    world.start(description("a", batching=batching(delay=0.001)))
    frontend = world.frontends[0]
    for _ in range(20):
        world.ask(frontend, infer(0, "a", (1, 4)))
    world.advance(5.0)  # which counts how often the core wants to be called


def test_a_server_that_ends_finishes_its_requests_first() -> None:
    world = World()
    world.start(description("a"))
    frontend = world.frontends[0]
    records = [world.ask(frontend, infer(0, "a")) for _ in range(3)]
    world.apply(world.core.drain("received SIGTERM", world.now))
    refused = world.ask(frontend, infer(0, "a"))
    assert "Server is stopping, scheduler for model has stopped accepting new" in refused.responses[0].error
    (worker,) = world.workers
    world.begin(worker)
    world.bury(worker)  # and a worker that dies meanwhile is started again
    world.settle()
    assert [record.responses[0].code for record in records] == [ErrorCode.OK] * 3
    assert world.exit_status == 0


def test_a_server_does_not_end_later_than_it_may() -> None:
    world = World(exit_timeout_secs=5)
    world.start(description("a"))
    world.ask(world.frontends[0], infer(0, "a"))
    world.begin(world.workers[0])
    world.apply(world.core.drain("received SIGTERM", world.now))
    world.advance(4.5)
    assert world.exit_status is None
    world.advance(1.0)
    assert world.exit_status == 1


def test_a_worker_that_is_being_killed_is_not_believed_any_more() -> None:
    world = World()
    world.start(description("a", count=2))
    record = world.ask(world.frontends[0], infer(0, "a"))
    worker = world.processes[record.worker]
    world.begin(worker)
    world.apply(world.core.malformed(worker.token, "nonsense", world.now))
    world.finish(worker)
    (message,) = worker.outbox
    world.apply(world.core.handle(worker.token, [message], world.now))
    assert not record.is_answered, "it has been given up, and is not answered twice"
    world.bury(worker)
    assert record.worker not in ("", worker.token)


def down(world: World) -> Process:
    """The model's only worker has died; the one that takes its place is loading."""
    world.bury(world.workers[0])
    (fresh,) = world.workers
    world.greet(fresh)
    return fresh


def test_requests_wait_for_a_replacement_however_long_it_loads() -> None:
    world = World()
    world.start(description("a"))
    fresh = down(world)
    early = world.ask(world.frontends[0], infer(0, "a"))
    world.advance(10 * OUTAGE_SECONDS)
    late = world.ask(world.frontends[0], infer(0, "a"))
    world.advance(1.0)
    assert not early.is_answered
    world.hear(fresh)
    world.load(fresh)
    world.settle()
    assert [record.responses[0].code for record in (early, late)] == [ErrorCode.OK] * 2


def test_requests_are_refused_when_the_replacement_does_not_come() -> None:
    world = World()
    world.start(description("a"))
    fresh = down(world)
    early = world.ask(world.frontends[0], infer(0, "a"))
    world.advance(2 * OUTAGE_SECONDS)
    world.hear(fresh)
    world.load(fresh, "no GPU")
    world.bury(fresh)
    assert early.responses[0].code == ErrorCode.UNAVAILABLE
    late = world.ask(world.frontends[0], infer(0, "a"))
    assert late.responses[0].code == ErrorCode.UNAVAILABLE


def test_a_version_whose_worker_died_is_not_looked_after_for_ever() -> None:
    world = World()
    parameters = {"retry_on_crash": "false", "execution_timeout_ms": "5000"}
    world.start(description("a", parameters=parameters))
    world.ask(world.frontends[0], infer(0, "a"))
    world.begin(world.workers[0])
    world.bury(world.workers[0])
    world.settle()
    world.check_settled()
