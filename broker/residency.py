"""Which models are to be in memory: numbers and times in, decisions out. Pure; `on_demand` carries them out.

A model that is waited for is loaded once there is room for it. Room is made by those that have been idle longest; where
all are busy for long, by those that were used least recently, which finish what they execute before they go. Memory is
free when the process that had it is gone, not before.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Generic, TypeAlias, TypeVar

PATIENCE_SECONDS = 3.0
"""After waiting so long a model may take the place of one that is busy."""
WAIT_SECONDS = 30.0
"""Nobody waits longer than this for room while no other model comes or goes."""
MAX_WAIT_SECONDS = 300.0
"""Nor longer than this in any case: one that never ends to load must not keep others out."""

CPU = "cpu"
"""The place that is the machine's memory; others are GPUs, by their entries in CUDA_VISIBLE_DEVICES."""

Key = TypeVar("Key", bound=Hashable)

Memory: TypeAlias = Mapping[str, int]
"""Bytes by place."""


class Phase(Enum):
    """Where a model is."""

    AWAITED = "awaited"  # not in memory, and somebody waits for it
    LOADING = "loading"  # its processes are coming up, or have not been measured yet
    RESIDENT = "resident"
    LEAVING = "leaving"  # its processes are about to end


@dataclass(frozen=True, slots=True)
class Tenant(Generic[Key]):
    """One model version that has memory, or wants some.

    `used` is what its processes have now, `expected` what they will have once it is loaded (None: nobody knows),
    `places` where they may have it. `is_bound`: it has begun what only it can go on with. `is_kept`: it is never put to
    sleep; `idle_ttl` 0: not for being idle. One that leaves and is awaited again is there twice.
    """

    key: Key
    phase: Phase
    used: Memory = field(default_factory=dict)
    expected: Memory | None = None
    places: tuple[str, ...] = (CPU,)
    is_busy: bool = False
    is_bound: bool = False
    is_kept: bool = False
    idle_ttl: float = 0.0
    last_used: float = 0.0
    waits_since: float = 0.0
    loaded_at: float = 0.0

    def charge(self, place: str) -> int:
        """The bytes to reckon with."""
        used = self.used.get(place, 0)
        if self.phase is Phase.RESIDENT or self.expected is None:
            return used
        if self.phase is Phase.AWAITED:
            return self.expected.get(place, 0)
        return used if self.phase is Phase.LEAVING else max(used, self.expected.get(place, 0))


@dataclass(slots=True)
class Decisions(Generic[Key]):
    """What is to be done, with the reason for people."""

    wake: list[Key] = field(default_factory=list)
    sleep: list[tuple[Key, str]] = field(default_factory=list)
    refuse: list[tuple[Key, str]] = field(default_factory=list)


IDLE, ROOM = "idle", "room"
"""Why a model leaves: nobody has used it for long, or another one needs its memory."""


def decide(tenants: Sequence[Tenant[Key]], budget: Memory, now: float) -> Decisions[Key]:
    """What is to be done now. `budget` has the places that have one."""
    return _Decider(tenants, budget, now).run()


def room(tenants: Iterable[Tenant[Key]], budget: Memory) -> dict[str, int]:
    """What is free of each budget."""
    there = list(tenants)
    return {place: limit - sum(tenant.charge(place) for tenant in there) for place, limit in budget.items()}


class _Decider(Generic[Key]):
    """One round. `free` is what is left when everybody who leaves is gone, `now_free` what is left this moment."""

    def __init__(self, tenants: Sequence[Tenant[Key]], budget: Memory, now: float) -> None:
        self._tenants = tenants
        self._budget = budget
        self._now = now
        self._found: Decisions[Key] = Decisions()
        there = [tenant for tenant in tenants if tenant.phase is not Phase.AWAITED]
        self._now_free = room(there, budget)
        self._free = room([tenant for tenant in there if tenant.phase is not Phase.LEAVING], budget)
        self._staying = {t.key: t for t in tenants if t.phase is Phase.RESIDENT and not t.is_kept}
        self._is_moving = any(t.phase in {Phase.LOADING, Phase.LEAVING} for t in tenants)
        self._is_learning = any(t.phase is Phase.LOADING and t.expected is None for t in tenants)

    def run(self) -> Decisions[Key]:
        for tenant in list(self._staying.values()):
            if not tenant.is_busy and 0 < tenant.idle_ttl <= self._now - tenant.last_used:
                self._send_away(tenant, IDLE)
        self._make_room({}, is_urgent=False)  # what is there may have grown
        for tenant in sorted((t for t in self._tenants if t.phase is Phase.AWAITED), key=lambda t: t.waits_since):
            self._admit(tenant)
        return self._found

    def _admit(self, tenant: Tenant[Key]) -> None:
        refusal = self._refusal(tenant)
        if refusal:
            self._found.refuse.append((tenant.key, refusal))
            return
        is_unknown = tenant.expected is None
        needed = {place: max(tenant.charge(place), is_unknown) for place in tenant.places if place in self._budget}
        has_room = all(self._now_free[place] >= size for place, size in needed.items())
        if not has_room:
            self._make_room(needed, self._now - tenant.waits_since >= PATIENCE_SECONDS)
        if needed and is_unknown:  # its size shows when it is there: one of them at a time
            has_room = has_room and not self._is_learning
            self._is_learning = True
        if has_room:
            self._found.wake.append(tenant.key)
        for place, size in needed.items():  # also for one that has to wait: those behind it do not overtake
            self._now_free[place] -= size
            self._free[place] -= size

    def _refusal(self, tenant: Tenant[Key]) -> str:
        """Why it will not be loaded, "" if it may be."""
        kept = [t for t in self._tenants if t.is_kept and t.phase is not Phase.LEAVING and t.key != tenant.key]
        for place, limit in self._budget.items():
            needed, pinned = tenant.charge(place), sum(t.charge(place) for t in kept)
            if needed + pinned > limit:
                others = f", of which {mib(pinned)} belong to models that stay" if pinned else ""
                return f"it takes {mib(needed)} of {_named(place)}, and the budget is {mib(limit)}{others}"
        waited = self._now - tenant.waits_since
        if waited < (MAX_WAIT_SECONDS if self._is_moving else WAIT_SECONDS):
            return ""
        needs = "an unknown amount" if tenant.expected is None else _shown(tenant.expected, self._budget)
        taken = {place: limit - self._now_free[place] for place, limit in self._budget.items()}
        return (
            f"there was no room for it within {waited:.0f} s: it takes {needs}, and of {_shown(self._budget)} are "
            f"{_shown(taken)} in use"
        )

    def _make_room(self, needed: Memory, is_urgent: bool) -> None:
        """Have others leave until so much will be free, if that can be."""
        for choose in (_is_idle, self._is_dispensable) if is_urgent else (_is_idle,):
            chosen = self._choose(needed, choose)
            if chosen is not None:
                for tenant in chosen:
                    self._send_away(tenant, ROOM)
                return

    def _choose(self, needed: Memory, may_go: Callable[[Tenant[Key]], bool]) -> list[Tenant[Key]] | None:
        """Who has to leave: the least recently used first. None when all of them are not enough."""
        places = needed or self._free
        short = {place: needed.get(place, 0) - self._free[place] for place in places}
        chosen: list[Tenant[Key]] = []
        for tenant in sorted(filter(may_go, self._staying.values()), key=lambda t: (t.is_busy, t.last_used)):
            if any(lack > 0 and tenant.used.get(place, 0) for place, lack in short.items()):
                chosen.append(tenant)
                short = {place: lack - tenant.used.get(place, 0) for place, lack in short.items()}
        is_enough = all(lack <= 0 for lack in short.values())
        return chosen if is_enough or not needed else None

    def _is_dispensable(self, tenant: Tenant[Key]) -> bool:
        is_patient = self._now - tenant.loaded_at >= PATIENCE_SECONDS
        return not tenant.is_busy or (is_patient and not tenant.is_bound)

    def _send_away(self, tenant: Tenant[Key], why: str) -> None:
        del self._staying[tenant.key]
        self._found.sleep.append((tenant.key, why))
        for place in self._free:
            self._free[place] += tenant.charge(place)


def _is_idle(tenant: Tenant[Key]) -> bool:
    return not tenant.is_busy


def mib(size: int) -> str:
    """Bytes for people."""
    return f"{size / 2**20:.1f} MiB"


def _named(place: str) -> str:
    return "memory" if place == CPU else f"the memory of GPU {place}"


def _shown(memory: Memory, places: Iterable[str] | None = None) -> str:
    return " and ".join(f"{mib(memory.get(place, 0))} of {_named(place)}" for place in places or memory)
