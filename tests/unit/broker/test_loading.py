"""Whose turn it is to load, and what is said about those who do."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.loading import Limits, Turns, fits, phase
from broker.messages import GetLoading, LoadMeasured, LoadProgress
from broker.models import Instance, InstanceState, Version
from configs.description import Environment
from tests.unit.broker.describe import description
from tests.unit.broker.world import World

COMING = {InstanceState.STARTING, InstanceState.LOADING}


def instance(byte_size: int = 0, **changes: Any) -> Instance:
    version = Version.create(description(load_byte_size=byte_size, **changes), 1)
    return Instance(version.description.instances[0], version, InstanceState.QUEUED)


@pytest.mark.parametrize(
    ("expected", "loading", "limits", "answer"),
    [
        (1, [], Limits(1, 10), True),
        (99, [], Limits(1, 10), True),  # alone
        (5, [5], Limits(2, 10), True),
        (6, [5], Limits(2, 10), False),
        (1, [1, 1], Limits(2, 10), False),
        (99, [99, 99], Limits(3, 0), True),
        (1, [1] * 100, Limits(0, 0), True),
    ],
)
def test_what_fits(expected: int, loading: list[int], limits: Limits, answer: bool) -> None:
    assert fits(expected, loading, limits) is answer


@given(
    sizes=st.lists(st.integers(0, 20), max_size=12),
    limits=st.builds(Limits, st.integers(0, 3), st.integers(0, 30)),
    order=st.randoms(use_true_random=False),
)
def test_everybody_loads_in_order_and_never_too_many(sizes: list[int], limits: Limits, order: Any) -> None:
    turns, wanted = Turns(limits), [instance(size) for size in sizes]
    for each in wanted:
        turns.add(each)
    loading: list[Instance] = []
    begun: list[Instance] = []
    while turns or loading:
        while (another := turns.next(loading)) is not None:
            another.state = order.choice([*COMING])
            loading.append(another)
            begun.append(another)
            assert not limits.instances or len(loading) <= limits.instances
            total = sum(each.version.description.load_byte_size for each in loading)
            assert len(loading) == 1 or not limits.byte_size or total <= limits.byte_size
        assert loading, "nobody loads, and nobody may begin"
        loading.remove(order.choice(loading))
    assert begun == wanted


def test_who_has_loaded_or_makes_its_environment_takes_no_part() -> None:
    turns = Turns(Limits(1, 0))
    turns.add(instance())
    ready, building, killed = instance(), instance(environment=Environment("folder", "/e", "")), instance()
    ready.state, ready.ready_at = InstanceState.READY, 1.0
    building.state, killed.state = InstanceState.STARTING, InstanceState.DRAINING
    assert turns.next([ready, killed]) is None
    building.state = InstanceState.LOADING
    assert turns.next([building]) is None
    building.state = InstanceState.STARTING
    assert turns.next([ready, building]) is not None


def test_who_does_not_want_to_load_any_more_is_forgotten() -> None:
    turns, first, second = Turns(Limits(1, 0)), instance(), instance()
    turns.add(first)
    turns.add(second)
    assert turns.remove(first)
    assert not turns.remove(first)
    assert turns.next([]) is second
    assert turns.next([]) is None


# ------------------------------------------------------------------------------------------- in the core


def world_of(*names: str, **limits: Any) -> World:
    """All workers that have been started have said Hello; none has loaded."""
    world = World(**limits)
    repository = world.of("repository")[0]
    world.greet(repository)
    for name in names:
        world.describe(description(name, count=2))
    return world


def states(world: World) -> list[str]:
    return [i.state.value for m in world.core.models.values() for v in m.all_versions() for i in v.instances]


def test_so_many_instances_start_and_the_next_when_one_has_loaded_failed_or_died() -> None:
    world = world_of("a", "b", "c", model_load_thread_count=2)
    assert states(world) == ["starting", "starting", "queued", "queued", "queued", "queued"]
    first, second = world.workers
    world.boot(first)
    assert states(world)[:4] == ["ready", "starting", "starting", "queued"]
    world.greet(second)
    world.hear(second)
    world.load(second, error="no")
    world.deliver(second)
    assert states(world).count("starting") == 2
    world.bury(world.workers[-1])
    world.settle()
    assert "queued" not in states(world)
    assert {version.state for m in world.core.models.values() for version in m.all_versions()} != {"LOADING"}


def test_a_model_that_is_removed_does_not_start() -> None:
    world = world_of("a", "b", model_load_thread_count=1)
    assert states(world) == ["starting", "queued", "queued", "queued"]
    world.remove("b")
    assert states(world) == ["starting", "queued"]
    world.settle()
    assert states(world) == ["ready", "ready"]


def test_a_worker_that_served_is_started_again_at_once() -> None:
    world = World()
    world.start(description("a"), description("b"))
    world.core.fleet.turns = Turns(Limits(1, 0))
    world.describe(description("c", count=2))
    for worker in [*world.workers_of("a"), *world.workers_of("b")]:
        world.bury(worker)
    assert states(world).count("starting") == 3


def test_the_phases_of_a_load_can_be_asked_for_and_what_it_takes_is_remembered() -> None:
    world = world_of("a", model_load_thread_count=1)
    (worker,) = world.workers
    rows = report(world)
    assert [(row["instance"], row["phase"]) for row in rows] == [("a_0_0", "start"), ("a_0_1", "queued")]
    world.greet(worker)
    assert report(world)[0]["phase"] == "import"
    world.now += 2
    world.say(worker, LoadProgress("load", 0), LoadProgress("warm-up", 0))
    world.deliver(worker)
    assert report(world)[0] == {
        "name": "a",
        "version": "1",
        "instance": "a_0_0",
        "phase": "warm-up",
        "seconds": 2.0,
        "expected_byte_size": 0,
    }
    world.say(worker, LoadProgress("ready", 77))
    world.deliver(worker)
    (repository,) = world.of("repository")
    assert LoadMeasured("/models/a", "a", 77) in repository.inbox
    world.settle()
    assert report(world) == []


def report(world: World) -> list[dict[str, Any]]:
    world.core._now = world.now  # as any message of a frontend sets it
    (answer,) = [each for each in world.core._questions_by_message().items() if each[0] is GetLoading]
    rows: list[dict[str, Any]] = answer[1](None)["loading"]
    return rows


@pytest.mark.parametrize("message", [LoadProgress("dinner", 0), LoadProgress("load", -1)])
def test_a_worker_that_talks_nonsense_about_its_load_is_killed(message: LoadProgress) -> None:
    world = world_of("a")
    worker = world.workers[0]
    world.greet(worker)
    world.say(worker, message)
    world.deliver(worker)
    assert worker.is_doomed


def test_an_environment_is_a_phase() -> None:
    building = instance(environment=Environment("folder", "/e", ""))
    building.state = InstanceState.STARTING
    assert phase(building) == "environment"
