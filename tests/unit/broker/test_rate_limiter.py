"""The rate limiter: what is short is never handed out twice, nobody is held up for nothing, nobody starves."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.messages import ErrorCode
from broker.models import InstanceState, VersionState
from configs import rate_limit
from configs.description import DynamicBatching, Instance, ModelDescription, Resource
from tests.unit.broker.describe import description, infer
from tests.unit.broker.world import Process, Record, World

R, S = "R", "S"


def model(name: str, priority: int = 1, count: int = 1, device: int | None = 0, **needs: int) -> ModelDescription:
    """A model whose instances take so much of the resources of one device (None: of the global ones)."""
    resources = tuple(Resource(resource, device, number) for resource, number in needs.items())
    signature = f"{device} {needs} {priority}"
    specs = [Instance(f"{name}_{n}", "KIND_CPU", "", "", signature, resources, priority) for n in range(count)]
    return description(name, instances=tuple(specs), max_batch_size=8)


def started(*models: ModelDescription, supply: tuple[str, ...] = ()) -> World:
    world = World(rate_limit="execution_count", rate_limit_resource=supply)
    world.start(*models)
    return world


def ask(world: World, *models: str) -> None:
    for name in models:
        world.ask(world.frontends[0], infer(0, name, (1, 4)))


def executing(world: World) -> list[str]:
    """The models that have a batch at a worker, one name for each batch."""
    return sorted(i.version.model for i in world.core.fleet.workers.values() for _ in i.attempts)


def busy_workers(world: World) -> list[Process]:
    return [worker for worker in world.workers if world.core.fleet.workers[worker.token].attempts]


def finish(world: World, name: str) -> None:
    """One execution of a model comes to its end."""
    run(world, next(worker for worker in world.workers_of(name) if worker in busy_workers(world)))


def run(world: World, worker: Process) -> None:
    world.begin(worker)
    world.finish(worker)
    world.deliver(worker)


# ------------------------------------------------------------------------------------------- who executes


def test_there_is_as_much_as_the_neediest_takes_unless_a_flag_says_otherwise() -> None:
    models = (model("a", R=1, count=2), model("b", R=1))
    world = started(*models)
    ask(world, "a", "a", "b")
    assert executing(world) == ["a"]
    world = started(*models, supply=("R:2",))
    ask(world, "a", "a", "b")
    assert executing(world) == ["a", "a"]
    finish(world, "a")
    assert executing(world) == ["a", "b"]
    world.settle()
    world.check_settled()


def test_an_instance_takes_one_batch_at_a_time() -> None:
    world = started(model("a"))
    ask(world, *"aaaa")
    for _ in range(4):
        assert executing(world) == ["a"]
        finish(world, "a")


def test_every_device_has_its_own_and_what_is_global_is_there_once() -> None:
    world = started(model("a", R=2, device=0), model("b", R=2, device=1))
    ask(world, "a", "b")
    assert executing(world) == ["a", "b"]
    world = started(model("a", R=2, device=None), model("b", R=2, device=None))
    ask(world, "a", "b")
    assert executing(world) == ["a"]


def test_who_waits_for_a_resource_holds_up_nobody_who_does_not_need_it() -> None:
    world = started(model("a", R=1), model("b", R=1), model("c", S=1), model("d"))
    ask(world, *"abcd")
    assert executing(world) == ["a", "c", "d"], "b waits"


def test_small_ones_do_not_overtake_a_large_one_for_ever() -> None:
    world = started(model("small", R=1, count=2), model("large", R=2))
    ask(world, *["small"] * 6, "large")
    finish(world, "small")
    assert executing(world) == ["small"], "one is free, and kept for the large one"
    finish(world, "small")
    assert executing(world) == ["large"]


def test_what_is_reserved_for_a_request_that_goes_away_is_free_again() -> None:
    world = started(model("small", R=1), model("other", R=1), model("large", R=2))
    ask(world, "small")
    large = world.ask(world.frontends[0], infer(0, "large", (1, 4)))
    ask(world, "other")
    assert executing(world) == ["small"]
    world.cancel(large)
    assert executing(world) == ["other", "small"]


def test_what_is_reserved_for_a_client_that_has_died_is_free_soon() -> None:
    world = World({"http": 2}, rate_limit="execution_count")
    world.start(model("small", R=1), model("other", R=1), model("large", R=2))
    ask(world, "small")
    doomed = world.frontends[1]
    world.ask(doomed, infer(0, "large", (1, 4)))
    ask(world, "other")
    world.bury(doomed)
    world.advance(1.0)
    assert executing(world) == ["other", "small"]


def test_who_waits_for_company_reserves_nothing() -> None:
    patient = model("patient", R=2)
    batched = ModelDescription.from_wire({**patient.to_wire(), "dynamic_batching": None})
    world = started(model("a", R=1), model("b", R=1), description_with_delay(batched, 5.0))
    ask(world, "a", "patient", "b")
    assert executing(world) == ["a", "b"]
    finish(world, "a")
    finish(world, "b")
    world.advance(5.1)
    assert executing(world) == ["patient"]


def description_with_delay(plain: ModelDescription, delay: float) -> ModelDescription:
    fields = {name: getattr(plain, name) for name in plain.__slots__}
    return ModelDescription(**{**fields, "dynamic_batching": DynamicBatching((8,), delay)})


@pytest.mark.parametrize(("priority", "share"), [(1, 12), (2, 8), (5, 4), (0, 12)])
def test_a_priority_of_three_gives_a_third_of_the_executions(priority: int, share: int) -> None:
    world = started(model("a", R=1, priority=1), model("b", R=1, priority=max(1, priority)))
    ask(world, *["a"] * 40, *["b"] * 40)
    turns: Counter[str] = Counter()
    for _ in range(24):
        (name,) = executing(world)
        turns[name] += 1
        finish(world, name)
    assert turns["b"] == pytest.approx(share, abs=1)


def test_who_had_nothing_to_do_has_saved_up_no_turns() -> None:
    world = started(model("a", R=1), model("b", R=1))
    for _ in range(20):
        ask(world, "a")
        finish(world, "a")
    ask(world, *"aaaaabbbbb")
    turns = []
    for _ in range(6):
        turns += executing(world)
        finish(world, turns[-1])
    assert turns.count("a") == 3


def test_a_dead_worker_gives_back_what_it_had() -> None:
    world = started(model("a", R=1), model("b", R=1))
    ask(world, *"ab")
    (worker,) = world.workers_of("a")
    world.begin(worker)
    world.bury(worker)
    assert executing(world) == ["b"]
    world.settle()
    world.check_settled()


# ------------------------------------------------------------------------------------------- models that call others


def call(world: World, caller: str, model: str) -> Record:
    """What a model executes calls another."""
    (worker,) = world.workers_of(caller)
    execute = worker.begun or world.begin(worker)
    return world.ask(worker, infer(0, model, (1, 4), attempt=execute.attempt))


def test_a_call_that_waits_for_what_its_caller_has_is_refused() -> None:
    world = started(model("a", R=1), model("b", R=1), model("c", S=1))
    ask(world, "a")
    assert not call(world, "a", "c").is_answered
    (response,) = call(world, "a", "b").responses
    assert response.code == ErrorCode.INVALID_ARG
    assert response.error.endswith("wait for models that wait for this call (b -> a -> b)")
    world.settle()
    world.check_settled()


def test_a_call_that_waits_for_what_others_have_is_not() -> None:
    world = started(model("a", R=1), model("b", R=1), model("c", R=1), supply=("R:2",))
    ask(world, *"ac")
    record = call(world, "a", "b")
    assert not record.is_answered
    finish(world, "c")
    assert executing(world) == ["a", "b"]


def test_nothing_is_reserved_before_a_call_for_those_that_may_wait_for_its_caller() -> None:
    world = started(model("a", R=1), model("b", R=1), model("large", R=2))
    ask(world, "a", "large")
    call(world, "a", "b")
    assert executing(world) == ["a", "b"]


# ------------------------------------------------------------------------------------------- what is refused

LIMITED = (
    'Invalid argument: Resource count for "R" is limited to {} which will prevent scheduling of one or more model '
    "instances, the minimum required count is {}"
)


@pytest.mark.parametrize(
    ("supply", "count"),
    [
        (("R:2",), 2),
        (("R:2:0",), 2),
        (("R:2:-1",), 2),
        (("R:4", "R:2"), 2),
        (("R:2", "R:4"), 2),
        (("R:4:0", "R:2:0"), 2),
        (("R:9:1",), 0),
        (("Q:9",), 0),
        (("R:0",), 0),
    ],
)
def test_what_could_never_execute_does_not_load(supply: tuple[str, ...], count: int) -> None:
    world = started(model("a", R=3), model("b"), supply=supply)
    (version,) = world.core.models["a"].versions.values()
    assert (version.state, version.reason) == (VersionState.UNAVAILABLE, LIMITED.format(count, 3))
    assert world.core.models["b"].versions[1].is_ready, "others are not harmed, now"
    world.describe(model("c"))
    assert world.core.models["c"].versions[1].state is VersionState.LOADING, "or later"
    world.settle()
    world.check_settled()


@pytest.mark.parametrize("supply", [(), ("R:3",), ("R:2", "R:4:0"), ("R:4", "R:2:0"), ("R:3:0", "R:1:1")])
def test_what_is_enough_loads(supply: tuple[str, ...]) -> None:
    assert started(model("a", R=3), supply=supply).core.models["a"].versions[1].is_ready


def test_a_global_resource_has_the_largest_count_of_any_device() -> None:
    world = started(model("a", R=4, device=None), model("b", R=5, device=None), supply=("R:4:0", "R:2:1"))
    assert world.core.models["a"].versions[1].is_ready
    assert world.core.models["b"].versions[1].reason == LIMITED.format(4, 5)


def test_a_resource_is_global_or_of_devices() -> None:
    world = started(model("a", R=1, device=None), model("b", R=1))
    assert world.core.models["b"].versions[1].reason == (
        'Invalid argument: Resource "R" is present as both global and device-specific resource in the model '
        "configuration."
    )
    world.remove("a")
    world.settle()
    world.describe(model("b", R=2))
    world.settle()
    assert world.core.models["b"].versions[1].is_ready, "once the other has gone"


def test_an_edit_that_could_never_execute_changes_nothing() -> None:
    world = started(model("a", R=3), supply=("R:3",))
    world.describe(model("a", R=4))
    assert world.core.models["a"].rejected == LIMITED.format(3, 4)
    ask(world, "a")
    assert executing(world) == ["a"]
    world.describe(model("a", R=2))
    world.settle()
    assert not world.core.models["a"].rejected
    world.check_settled()


def test_flags_are_read() -> None:
    assert rate_limit.parse(["R:4", "R:2:1", ":3", "R:5"]) == {("R", None): 4, ("R", 1): 2, ("", None): 3}


# ------------------------------------------------------------------------------------------- whatever comes

NEEDS = st.fixed_dictionaries({}, optional={R: st.integers(0, 3), S: st.integers(0, 3)})
MODELS = st.lists(st.tuples(NEEDS, st.integers(1, 4), st.integers(1, 2)), min_size=2, max_size=4)
STEPS = st.lists(st.tuples(st.sampled_from(["ask", "ask", "finish", "finish", "die", "cancel"]), st.integers(0, 99)))


@given(MODELS, st.sampled_from([(), ("R:3", "S:4")]), STEPS)
def test_nothing_is_taken_twice_or_left_idle_and_everything_is_executed(
    given_models: list[tuple[dict[str, int], int, int]], supply: tuple[str, ...], steps: list[tuple[str, int]]
) -> None:
    needs = {str(n): need for n, (need, _, _) in enumerate(given_models)}
    world = started(
        *[model(str(n), priority, count, **need) for n, (need, priority, count) in enumerate(given_models)],
        supply=supply,
    )
    total = {key: max((need.get(key, 0) for need in needs.values()), default=0) for key in (R, S)}
    if supply:
        total = {R: 3, S: 4}
    for action, number in steps:
        if action == "ask":
            ask(world, str(number % len(needs)))
        elif action == "cancel" and (records := world.open_records()):
            world.cancel(records[number % len(records)])
        elif action in {"finish", "die"} and (busy := busy_workers(world)):
            worker = busy[number % len(busy)]
            if action == "finish":
                run(world, worker)
            elif action == "die":
                world.bury(worker, is_outside=True)
        free = {key: total[key] - sum(needs[name].get(key, 0) for name in executing(world)) for key in (R, S)}
        assert min(free.values()) >= 0
        check_busy(world, needs, free)
    world.settle()
    world.check_settled()
    assert all(r.responses[0].code in {ErrorCode.OK, ErrorCode.CANCELLED} for r in world.records.values())


def check_busy(world: World, needs: dict[str, dict[str, int]], free: dict[str, int]) -> None:
    """Who needs nothing that somebody waits for executes at once, and somebody does while there is work."""
    queued = [world.core.models[name].versions[1] for name in needs if world.core.models[name].versions[1].scheduler]
    waiting = {
        version.model
        for version in queued
        if any(i.state is InstanceState.READY and not i.attempts for i in version.instances)
    }
    wanted = Counter(key for name in waiting for key, count in needs[name].items() if count)
    for name in waiting:
        others = all(wanted[key] == 1 for key, count in needs[name].items() if count)
        assert not others or any(free[key] < count for key, count in needs[name].items()), f"{name} waits for nothing"
    assert not waiting or executing(world)
