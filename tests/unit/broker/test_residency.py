"""Who is in memory: the rules one by one, and a world in which they hold whatever happens."""

from dataclasses import dataclass, replace

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from broker.residency import (
    CPU,
    IDLE,
    MAX_WAIT_SECONDS,
    PATIENCE_SECONDS,
    ROOM,
    WAIT_SECONDS,
    Memory,
    Phase,
    Tenant,
    decide,
    room,
)

MIB = 2**20
NOW = 1000.0


def resident(key: str, size: int, last_used: float = 0.0, **more: object) -> Tenant[str]:
    """A model in memory, of so many MiB."""
    known = {"used": {CPU: size * MIB}, "expected": {CPU: size * MIB}, **more}
    return Tenant(key, Phase.RESIDENT, last_used=last_used, **known)  # type: ignore[arg-type]


def awaited(key: str, size: int | None, since: float = NOW, **more: object) -> Tenant[str]:
    """One that is waited for; None: of unknown size."""
    expected = None if size is None else {CPU: size * MIB}
    return Tenant(key, Phase.AWAITED, expected=expected, waits_since=since, **more)  # type: ignore[arg-type]


def budget(size: int) -> Memory:
    """So many MiB."""
    return {CPU: size * MIB}


def test_without_a_budget_everybody_who_is_awaited_is_loaded() -> None:
    found = decide([resident("a", 1000), awaited("b", None), awaited("c", 5000)], {}, NOW)
    assert (found.wake, found.sleep, found.refuse) == (["b", "c"], [], [])


def test_the_least_recently_used_makes_room_and_memory_is_free_when_it_has_gone() -> None:
    there = [resident("new", 40, 20.0), resident("old", 40, 10.0)]
    found = decide([*there, awaited("c", 30)], budget(100), NOW)
    assert (found.wake, found.sleep) == ([], [("old", ROOM)])
    leaving = replace(there[1], phase=Phase.LEAVING)
    found = decide([there[0], leaving, awaited("c", 30)], budget(100), NOW)
    assert (found.wake, found.sleep) == ([], [])
    found = decide([there[0], awaited("c", 30)], budget(100), NOW)
    assert (found.wake, found.sleep) == (["c"], [])


def test_only_as_many_leave_as_are_needed() -> None:
    there = [resident(name, 25, float(number)) for number, name in enumerate("abcd")]
    assert decide([*there, awaited("e", 40)], budget(100), NOW).sleep == [("a", ROOM), ("b", ROOM)]


def test_who_is_busy_or_kept_stays_and_nobody_leaves_in_vain() -> None:
    there = [resident("busy", 40, is_busy=True), resident("kept", 40, is_kept=True), resident("idle", 10)]
    found = decide([*there, awaited("c", 50)], budget(100), NOW)
    assert (found.wake, found.sleep, found.refuse) == ([], [], [])


def test_who_has_waited_long_may_take_the_place_of_somebody_who_is_busy_for_long() -> None:
    busy, fresh = resident("busy", 80, is_busy=True), resident("fresh", 80, is_busy=True, loaded_at=NOW)
    waiting = awaited("c", 50, NOW - PATIENCE_SECONDS)
    assert decide([busy, waiting], budget(100), NOW).sleep == [("busy", ROOM)]
    assert not decide([fresh, waiting], budget(100), NOW).sleep
    assert not decide([replace(busy, is_bound=True), waiting], budget(100), NOW).sleep


def test_what_cannot_fit_is_refused_with_the_numbers() -> None:
    ((key, text),) = decide([awaited("c", 150)], budget(100), NOW).refuse
    assert (key, text) == ("c", "it takes 150.0 MiB of memory, and the budget is 100.0 MiB")
    ((_, text),) = decide([resident("p", 40, is_kept=True), awaited("c", 70)], budget(100), NOW).refuse
    assert text.endswith("the budget is 100.0 MiB, of which 40.0 MiB belong to models that stay")


def test_who_has_waited_too_long_is_refused_with_the_numbers() -> None:
    there = resident("busy", 80, is_busy=True, loaded_at=NOW)
    ((_, text),) = decide([there, awaited("c", 50, NOW - WAIT_SECONDS)], budget(100), NOW).refuse
    assert "it takes 50.0 MiB of memory, and of 100.0 MiB of memory are 80.0 MiB of memory in use" in text


def test_who_waits_while_others_come_and_go_waits_longer() -> None:
    loading: Tenant[str] = Tenant("a", Phase.LOADING, {CPU: 5 * MIB})
    assert not decide([loading, awaited("c", None, NOW - WAIT_SECONDS)], budget(100), NOW).refuse
    assert decide([loading, awaited("c", None, NOW - MAX_WAIT_SECONDS)], budget(100), NOW).refuse


def test_one_of_unknown_size_is_loaded_at_a_time_and_those_behind_it_do_not_overtake() -> None:
    waiting = [awaited("a", None, 1.0), awaited("b", None, 2.0), awaited("c", 10, 3.0)]
    assert decide(waiting, budget(100), 3.0).wake == ["a", "c"]
    loading: Tenant[str] = Tenant("a", Phase.LOADING, {CPU: 5 * MIB})
    assert decide([loading, *waiting[1:]], budget(100), 3.0).wake == ["c"]
    big = [resident("r", 60, is_busy=True), awaited("a", 50, 1.0), awaited("c", 10, 2.0)]
    assert not decide(big, budget(100), 3.0).wake


def test_who_grows_makes_others_leave() -> None:
    there = [resident("grown", 90, 20.0, is_busy=True), resident("old", 20, 5.0), resident("new", 20, 10.0)]
    assert decide(there, budget(100), NOW).sleep == [("old", ROOM), ("new", ROOM)]


def test_who_is_idle_for_long_leaves() -> None:
    there = [
        resident("idle", 1, NOW - 10, idle_ttl=10.0),
        resident("used", 1, NOW - 9, idle_ttl=10.0),
        resident("busy", 1, NOW - 10, idle_ttl=10.0, is_busy=True),
        resident("kept", 1, NOW - 10, idle_ttl=10.0, is_kept=True),
        resident("ever", 1, 0.0),
    ]
    assert decide(there, {}, NOW).sleep == [("idle", IDLE)]


def test_a_full_gpu_is_no_reason_against_a_model_without_one() -> None:
    limits = {CPU: 100 * MIB, "0": 100 * MIB}
    full: Tenant[str] = Tenant("g", Phase.RESIDENT, {"0": 120 * MIB}, is_busy=True)
    assert decide([full, awaited("c", None), awaited("d", 10)], limits, NOW).wake == ["c", "d"]
    on_gpu: Tenant[str] = Tenant("e", Phase.AWAITED, expected={"0": 10 * MIB}, places=(CPU, "0"), waits_since=NOW)
    idle = replace(full, is_busy=False)
    assert decide([idle, resident("r", 90), on_gpu], limits, NOW).sleep == [("g", ROOM)]


# ----------------------------------------------------------------------------------------------- whatever happens


@dataclass
class Model:
    """A model as it really is."""

    size: int
    peak: int | None = None  # what was measured
    phase: Phase | None = None  # None: not in memory, and nobody waits
    is_pinned: bool = False
    executing: int = 0
    waiting: int = 0
    since: float = 0.0
    last_used: float = 0.0
    loaded_at: float = 0.0
    is_leaving: bool = False  # its old process is still there, whatever the phase


LIMIT = 100
SIZES = {"a": 30, "b": 30, "c": 30, "d": 45, "e": 45, "f": 99, "g": 120, "p": 20}


class Residents(RuleBasedStateMachine):
    """Models are asked for, load, execute and leave, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.models = {name: Model(size) for name, size in SIZES.items()}
        pinned = self.models["p"]
        pinned.phase, pinned.is_pinned, pinned.peak = Phase.RESIDENT, True, pinned.size

    # ------------------------------------------------------------------------------------------- what may happen

    @rule(name=st.sampled_from(sorted(SIZES)), requests=st.integers(1, 3))
    def ask(self, name: str, requests: int) -> None:
        model = self.models[name]
        if model.phase is Phase.RESIDENT and not model.is_leaving:
            model.executing += requests
        else:
            model.waiting += requests
            if model.phase is None:
                model.phase, model.since = Phase.AWAITED, self.now
        self.act()

    @precondition(lambda self: self.in_phase(Phase.LOADING))
    @rule(index=st.integers(0, 9))
    def load(self, index: int) -> None:
        model = self.some(Phase.LOADING, index)
        model.phase, model.peak, model.loaded_at = Phase.RESIDENT, model.size, self.now
        model.executing, model.waiting, model.last_used = model.waiting, 0, self.now
        self.act()

    @rule(name=st.sampled_from(sorted(SIZES)))
    def execute(self, name: str) -> None:
        model = self.models[name]
        if model.executing:
            model.executing -= 1
            model.last_used = self.now
        self.act()

    @rule(name=st.sampled_from(sorted(SIZES)))
    def die(self, name: str) -> None:
        model = self.models[name]
        if model.is_leaving and not model.executing:
            model.is_leaving = False
        self.act()

    @rule(seconds=st.sampled_from([0.1, 1.0, 5.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.act()

    # ------------------------------------------------------------------------------------------- the world

    def in_phase(self, phase: Phase) -> list[Model]:
        return [model for model in self.models.values() if model.phase is phase]

    def some(self, phase: Phase, index: int) -> Model:
        found = self.in_phase(phase)
        return found[index % len(found)]

    def tenants(self) -> list[Tenant[str]]:
        found: list[Tenant[str]] = []
        for name, model in self.models.items():
            expected = None if model.peak is None else {CPU: model.peak}
            if model.is_leaving:
                found.append(Tenant(name, Phase.LEAVING, {CPU: model.size}, expected))
            if model.phase is Phase.AWAITED:
                found.append(Tenant(name, Phase.AWAITED, expected=expected, waits_since=model.since))
            elif model.phase is not None:
                used = model.size if model.phase is Phase.RESIDENT else 0
                found.append(
                    Tenant(
                        name,
                        model.phase,
                        {CPU: used},
                        expected,
                        is_busy=model.executing > 0,
                        is_kept=model.is_pinned,
                        idle_ttl=20.0,
                        last_used=model.last_used,
                        loaded_at=model.loaded_at,
                    )
                )
        return found

    def act(self) -> None:
        """Do what is decided, and hold it against the promises."""
        found = decide(self.tenants(), {CPU: LIMIT}, self.now)
        for name in found.wake:
            model = self.models[name]
            assert model.phase is Phase.AWAITED
            model.phase = Phase.LOADING
            if model.peak is None:
                assert not any(
                    m.phase is Phase.LOADING and m.peak is None for m in self.models.values() if m is not model
                )
        for name, _ in found.sleep:
            model = self.models[name]
            assert model.phase is Phase.RESIDENT
            assert not model.is_pinned
            is_patient = all(self.now - m.since < PATIENCE_SECONDS for m in self.in_phase(Phase.AWAITED))
            assert not (model.executing and is_patient), "sent away while busy, for nobody who has waited"
            model.phase, model.is_leaving = None, True
        for name, _ in found.refuse:
            model = self.models[name]
            assert model.phase is Phase.AWAITED
            cannot_fit = model.peak is not None and model.peak + SIZES["p"] > LIMIT
            assert cannot_fit or self.now - model.since >= WAIT_SECONDS
            model.phase, model.waiting = None, 0

    @invariant()
    def the_budget_is_exceeded_by_no_more_than_one_model(self) -> None:
        there = [m.size for m in self.models.values() if m.phase in {Phase.LOADING, Phase.RESIDENT}]
        there += [m.size for m in self.models.values() if m.is_leaving]
        assert sum(there) - max(there) <= LIMIT

    def teardown(self) -> None:
        """Everybody is answered in the end: loads finish, executions too, processes end."""
        for _ in range(100):
            for model in self.models.values():
                if model.phase is Phase.LOADING:
                    model.phase, model.peak, model.loaded_at = Phase.RESIDENT, model.size, self.now
                    model.executing, model.waiting = model.executing + model.waiting, 0
                model.executing, model.is_leaving = 0, False
            self.now += 0.5
            self.act()
        assert not any(model.waiting or model.phase is Phase.AWAITED for model in self.models.values())
        assert sum(m.size for m in self.in_phase(Phase.RESIDENT)) <= LIMIT
        assert room(self.tenants(), {CPU: LIMIT})[CPU] >= 0


TestResidents = Residents.TestCase
TestResidents.settings = settings(max_examples=2 * settings.default.max_examples, stateful_step_count=30)
