"""Scaling plans, back-off, and what a worker may hold."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from broker.models import (
    MAX_BACK_OFF_SECONDS,
    PREFETCH_LIMIT,
    SLOW_SECONDS,
    Instance,
    InstanceState,
    Model,
    Version,
    VersionState,
    back_off,
    plan_scale,
    prefetch,
)
from configs.description import Instance as InstanceSpec
from configs.description import TensorSpec
from tests.unit.broker.describe import description, instances

READY, STARTING, DRAINING = InstanceState.READY, InstanceState.STARTING, InstanceState.DRAINING


def running(version: Version, specs: tuple[InstanceSpec, ...], *states: InstanceState) -> list[Instance]:
    states = states or (READY,) * len(specs)
    return [Instance(spec, version, state) for spec, state in zip(specs, states, strict=True)]


def names(found: list[Instance]) -> list[str]:
    return [instance.key for instance in found]


VERSION = Version.create(description("m"), 1)


def test_more_are_started_and_the_rest_is_kept() -> None:
    plan = plan_scale(running(VERSION, instances("m", 2)), instances("m", 4))
    assert names(plan.keep) == ["m_0_0", "m_0_1"]
    assert [spec.name for spec in plan.start] == ["m_0_2", "m_0_3"]
    assert plan.drain == []


def test_the_last_ones_go() -> None:
    plan = plan_scale(running(VERSION, instances("m", 4)), instances("m", 2))
    assert names(plan.keep) == ["m_0_0", "m_0_1"]
    assert plan.start == []
    assert names(plan.drain) == ["m_0_2", "m_0_3"]


def test_those_that_serve_stay_and_those_that_do_not_go() -> None:
    plan = plan_scale(running(VERSION, instances("m", 3), STARTING, READY, READY), instances("m", 2))
    assert names(plan.keep) == ["m_0_1", "m_0_2"]
    assert names(plan.drain) == ["m_0_0"]
    assert plan.start == []


def test_what_drains_already_is_not_taken_back() -> None:
    plan = plan_scale(running(VERSION, instances("m", 2), READY, DRAINING), instances("m", 2))
    assert [spec.name for spec in plan.start] == ["m_0_1"]
    assert plan.drain == []


def test_another_device_is_another_instance() -> None:
    plan = plan_scale(running(VERSION, instances("m", 2, "gpu 0")), instances("m", 1, "gpu 0") + instances("m", 1, "x"))
    assert names(plan.keep) == ["m_0_0"]
    assert [spec.signature for spec in plan.start] == ["x"]
    assert names(plan.drain) == ["m_0_1"]


def test_a_group_that_is_renamed_keeps_its_instances() -> None:
    plan = plan_scale(running(VERSION, instances("old", 2)), instances("new", 3))
    assert names(plan.keep) == ["old_0_0", "old_0_1"]
    assert len(plan.start) == 1
    assert plan.drain == []


SPECS = st.builds(
    lambda number, device: InstanceSpec(f"m_{number}", "KIND_GPU", device, device, device),
    st.integers(0, 5),
    st.sampled_from(["0", "1", "2"]),
)


@given(
    st.lists(st.tuples(SPECS, st.sampled_from([READY, STARTING, DRAINING])), max_size=12),
    st.lists(SPECS, max_size=12, unique=True),
)
def test_exactly_the_difference(found: list[tuple[InstanceSpec, InstanceState]], wanted: list[InstanceSpec]) -> None:
    existing = [Instance(spec, VERSION, state) for spec, state in found]
    plan = plan_scale(existing, wanted)
    usable = [instance for instance in existing if instance.state is not DRAINING]
    assert {id(i) for i in [*plan.keep, *plan.drain]} == {id(i) for i in usable}
    assert len(plan.keep) + len(plan.drain) == len(usable), "each is kept or drained, not both"
    have, want = Counter(i.spec.signature for i in usable), Counter(spec.signature for spec in wanted)
    assert Counter(spec.signature for spec in plan.start) == want - have
    assert Counter(i.spec.signature for i in plan.drain) == have - want
    assert set(plan.start) <= set(wanted)
    for signature in want:
        kept = [i for i in plan.keep if i.spec.signature == signature]
        gone = [i for i in plan.drain if i.spec.signature == signature]
        assert all(i.state is READY for i in kept) or not any(i.state is READY for i in gone)
        started = {spec.name for spec in plan.start if spec.signature == signature}
        assert not started & set(names(kept)), "two of the same name"


def test_the_first_restart_is_at_once_and_then_ever_later_up_to_a_limit() -> None:
    assert [back_off(n) for n in range(8)] == [0.0, 0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0]
    assert back_off(5000) == MAX_BACK_OFF_SECONDS


@given(st.floats(0, 100) | st.none())
def test_more_waits_behind_quick_executions_and_nothing_behind_slow_ones(seconds: float | None) -> None:
    waiting = prefetch(seconds)
    assert 0 <= waiting <= PREFETCH_LIMIT
    if seconds is None or seconds >= SLOW_SECONDS:
        assert waiting == 0
    else:
        assert waiting >= 1
        assert prefetch(seconds / 2) >= waiting


def test_work_goes_to_the_ready_instance_with_the_least_to_do() -> None:
    version = Version.create(description("m", count=3), 1)
    assert version.pick() is None
    version.instances = running(version, instances("m", 3), STARTING, READY, READY)
    second, third = version.instances[1:]
    assert version.pick() is second
    second.attempts[1] = None  # type: ignore[assignment]  # only counted
    assert version.pick() is third
    third.attempts[2] = None  # type: ignore[assignment]
    assert version.pick() is None, "nothing is known about the time of an execution: nothing waits"
    second.executed(0.001)
    assert version.pick() is second


def test_the_newest_version_that_is_alive_serves() -> None:
    model = Model("m")
    for number in (1, 2, 3):
        model.versions[number] = Version.create(description("m"), number)
    assert model.newest_ready() is None
    for number in (1, 2):
        model.versions[number].state = VersionState.READY
    assert model.newest_ready() is model.versions[2]
    model.versions[1].instances = running(model.versions[1], instances("m", 1))
    assert model.newest_ready() is model.versions[1], "no instance of version 2 is alive"


def test_what_a_model_completes_outlives_the_worker_that_found_it() -> None:
    version = Version.create(description(), 1)
    version.complete((), (), {"max_batch_size": 4, "dynamic_batching": {}})
    version.complete((), (), {})  # a worker that comes back is told all of that, and finds nothing more
    version.reschedule(description(count=2))
    assert version.signature.max_batch_size == version.description.max_batch_size == 4
    assert version.description.dynamic_batching is not None


def test_inputs_that_the_configuration_leaves_out_join_those_that_it_declares() -> None:
    version = Version.create(description(), 1)
    for _ in range(2):  # two instances
        version.complete((TensorSpec("MORE", "INT32", (2,)), TensorSpec("IN", "INT32", (2,))), (), {})
    assert [(spec.name, spec.datatype) for spec in version.signature.inputs] == [("IN", "FP32"), ("MORE", "INT32")]


def test_parameters_of_a_model() -> None:
    def version(**parameters: str) -> Version:
        return Version.create(description("m", parameters=parameters), 1)

    assert version().execution_timeout is None
    assert version(execution_timeout_ms="0").execution_timeout is None
    assert version(execution_timeout_ms="soon").execution_timeout is None
    assert version(execution_timeout_ms="1500").execution_timeout == 1.5
    assert version(execution_timeout_ms="²").execution_timeout is None
    assert version(execution_timeout_ms="9" * 5000).execution_timeout is None
    assert version().retries_started
    assert version(retry_on_crash="yes").retries_started
    assert not version(retry_on_crash="False").retries_started
    assert not version(retry_on_crash="0").retries_started
    assert not Version.create(description("m", decoupled=True), 1).retries_started
