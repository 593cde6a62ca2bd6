"""Sequences under the rate limiter: each is bound to its instance, which has to wait for its turn all the same."""

from dataclasses import replace

from broker.messages import ErrorCode
from configs.description import Instance, ModelDescription, Resource
from tests.unit.broker.describe import description, infer
from tests.unit.broker.sequences import END, START, settings
from tests.unit.broker.world import Process, Record, World


def limited(name: str, count: int = 1, delay: float = 0.0) -> ModelDescription:
    """A model whose instances have one slot each, and take the one R that there is."""
    one = Instance(name, "KIND_CPU", "", "", "cpu", (Resource("R", 0, 1),))
    found = tuple(replace(one, name=f"{name}_{number}") for number in range(count))
    wait = {"max_queue_delay": delay, "minimum_slot_utilization": 1.0 if delay else 0.0}
    batching = settings(2 if delay else 1, 60.0, **wait)
    return description(name, instances=found, max_batch_size=2, sequence_batching=batching)


def started(*descriptions: ModelDescription) -> World:
    world = World(rate_limit="execution_count")
    world.start(*descriptions)
    return world


def ask(world: World, model: str, identity: int, flags: int = 0) -> Record:
    return world.ask(world.frontends[0], infer(0, model, (1, 4), correlation_id=identity, flags=flags))


def execute(world: World, worker: Process) -> None:
    world.begin(worker)
    world.finish(worker)
    world.deliver(worker)


def test_one_sequence_at_a_time_has_the_resource_and_each_its_own_instance() -> None:
    world = started(limited("a", 2))
    first, second = world.workers
    records = [ask(world, "a", 1, START), ask(world, "a", 2, START)]
    assert [record.worker for record in records] == [first.token, ""]
    execute(world, first)
    assert records[1].worker == second.token
    execute(world, second)
    records = [ask(world, "a", 2, END), ask(world, "a", 1, END)]
    assert [record.worker for record in records] == [second.token, ""]
    execute(world, second)
    assert records[1].worker == first.token
    execute(world, first)
    assert all(record.responses[-1].code == ErrorCode.OK for record in records)
    world.settle()
    world.check_settled()


def test_a_batch_that_has_waited_long_enough_waits_for_its_resources_in_peace() -> None:
    world = started(limited("a", delay=0.5), limited("b"))
    (of_a,), (of_b,) = world.workers_of("a"), world.workers_of("b")
    ask(world, "b", 1, START)
    waiting = ask(world, "a", 1, START)
    world.begin(of_b)
    world.advance(5.0)  # which fails when the core wants to be called again and again
    assert not waiting.worker
    world.finish(of_b)
    world.deliver(of_b)
    assert waiting.worker == of_a.token
