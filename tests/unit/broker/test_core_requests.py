"""Requests whose frontends and workers die, whose clients go away, whose models change under them."""

from tests.unit.broker.describe import batching, description, infer
from tests.unit.broker.world import World


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
