"""The rate limiter: whose turn it is to execute while the resources that instance groups name are short. Pure.

Of the instances that could execute the one with the fewest executions, times its priority, has the first claim, its
next one counted, as in Triton; of two with the same claim the more urgent one. But one that claims what is taken
holds up only those that need the same, and who had nothing to do has saved up no turns: turns are counted from where
those are who share its resources, directly or by way of others.
"""

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from broker.models import Instance, InstanceState, Version
from configs.description import Instance as InstanceSpec
from configs.rate_limit import Supply

Key: TypeAlias = tuple[str, int | None]
"""A resource's name and device; None: what all devices share."""
Turn: TypeAlias = tuple[int, int]
"""When an execution would be paid for, and the priority that decides between equals."""


class Unsatisfiable(Exception):
    """Some instance could never execute."""


class RateLimiter:
    """Knows who needs what; who executes it sees in the instances themselves, so nothing is ever left taken."""

    def __init__(self, supply: Supply) -> None:
        """`supply` is what the flags give; when empty there is as much as the neediest instance takes."""
        self._supply = supply
        self._needs: dict[Version, dict[Key, int]] = {}
        self._capacity: dict[Key, int] = {}
        self._executing: set[Instance] = set()  # and some that have just finished
        self._waiting: dict[Version, Turn] = {}  # with work, an idle instance and no resources: until which turn
        self._shared: dict[Key, frozenset[Key]] = {}  # the resources whose turns are counted together
        self._clock: dict[Key, int] = {}  # the latest turn that was taken

    # ------------------------------------------------------------------------------------------- models

    def check(self, model: str, specs: Iterable[InstanceSpec]) -> None:
        """Raises Unsatisfiable when these instances of a model cannot be beside those of the others."""
        others = [needs for version, needs in self._needs.items() if version.model != model]
        needed = _largest([*others, _largest(map(_needs, specs))])
        for name, device in needed:
            if device is not None and (name, None) in needed:
                raise Unsatisfiable(
                    f'Resource "{name}" is present as both global and device-specific resource in the model '
                    "configuration."
                )
        for key, count in needed.items():
            if self._available(key, count) < count:
                raise Unsatisfiable(
                    f'Resource count for "{key[0]}" is limited to {self._available(key, count)} which will prevent '
                    f"scheduling of one or more model instances, the minimum required count is {count}"
                )

    def admit(self, version: Version, specs: Iterable[InstanceSpec]) -> None:
        """A version has these instances from now on."""
        self._needs[version] = _largest(map(_needs, specs))
        self._recount()

    def forget(self, version: Version) -> None:
        """A version is gone."""
        self._needs.pop(version, None)
        self._waiting.pop(version, None)
        self._recount()

    def _recount(self) -> None:
        needed = _largest(self._needs.values())
        self._capacity = {key: self._available(key, count) for key, count in needed.items()}
        self._shared = _joined(self._needs.values())
        self._clock = {key: self._clock.get(key, 0) for key in needed}

    def _available(self, key: Key, needed: int) -> int:
        if not self._supply:
            return needed
        name, device = key
        places = {None, device} if device is not None else {place for _, place in self._supply}
        return max([self._supply.get((name, place), 0) for place in places], default=0)

    # ------------------------------------------------------------------------------------------- turns

    def pick(self, version: Version, now: float) -> Instance | None:
        """An idle instance whose turn it is, if there are its resources; else the version waits."""
        idle = _idle(version)
        if not idle:
            self._waiting.pop(version, None)
            return None
        if not idle[0].spec.resources:
            return idle[0]
        turn = self._waiting.get(version, self._turn_of(idle[0]))
        others = [*self.executing(), *self._ahead_of(version, turn, now)]
        for instance in idle:
            if self.can_join(instance, others):
                return instance
        self._waiting[version] = turn
        return None

    def can_join(self, instance: Instance, others: Iterable[Instance]) -> bool:
        """Whether these leave enough for an instance."""
        left = {key: self._capacity.get(key, 0) - count for key, count in _needs(instance.spec).items()}
        for other in others:
            for key, count in _needs(other.spec).items():
                if key in left:
                    left[key] -= count
        return all(count >= 0 for count in left.values())

    def executing(self) -> set[Instance]:
        """The instances that have taken resources."""
        self._executing = {instance for instance in self._executing if instance.attempts}
        return self._executing

    def took(self, instance: Instance) -> None:
        """An instance that was picked executes: it comes the later the next time the larger its priority is."""
        turn = self._waiting.pop(instance.version, self._turn_of(instance))
        if not instance.spec.resources:
            return
        self._executing.add(instance)
        instance.turn = max(instance.turn, turn[0])
        for needed in _needs(instance.spec):
            for key in self._shared.get(needed, ()):
                self._clock[key] = max(self._clock[key], turn[0] - instance.spec.priority)

    def _turn_of(self, instance: Instance) -> Turn:
        priority = instance.spec.priority
        return max([instance.turn, *(self._clock.get(key, 0) for key in _needs(instance.spec))]) + priority, priority

    def waiting(self) -> list[Version]:
        """The versions that wait for resources, by their turns."""
        for version in [version for version in self._waiting if not version.scheduler]:
            del self._waiting[version]
        return sorted(self._waiting, key=self._waiting.__getitem__)

    def _ahead_of(self, version: Version, turn: Turn, now: float) -> list[Instance]:
        """Those that have waited for an earlier turn; nobody where a model has called: they may wait for that one."""
        if version.calls:
            return []
        waiting = self.waiting()
        if version in self._waiting:
            ahead = waiting[: waiting.index(version)]
        else:
            ahead = [other for other in waiting if self._waiting[other] <= turn]
        return [first for other in ahead if _is_due(other, now) for first in _idle(other)[:1]]


def _idle(version: Version) -> list[Instance]:
    if version.sequences is not None:  # each is bound to an instance
        due = version.sequences.due()
        ready = [instance for instance in version.instances if instance in due]
    else:
        ready = [i for i in version.instances if i.state is InstanceState.READY and not i.attempts]
    return sorted(ready, key=lambda instance: (bool(instance.spec.resources), instance.turn))


def _is_due(version: Version, now: float) -> bool:
    """It would execute if it could: its requests do not wait for company."""
    deadline = version.scheduler.deadline()
    return deadline is None or deadline <= now


def _needs(spec: InstanceSpec) -> dict[Key, int]:
    return {(resource.name, resource.device): resource.count for resource in spec.resources}


def _joined(needs: Iterable[Iterable[Key]]) -> dict[Key, frozenset[Key]]:
    """The resources that hang together because somebody needs them together, by each of them."""
    joined: dict[Key, frozenset[Key]] = {}
    for keys in needs:
        union = frozenset(keys).union(*(joined[key] for key in keys if key in joined))
        joined.update(dict.fromkeys(union, union))
    return joined


def _largest(needs: Iterable[Mapping[Key, int]]) -> dict[Key, int]:
    """The largest count of each resource."""
    largest: dict[Key, int] = {}
    for each in needs:
        for key, count in each.items():
            largest[key] = max(count, largest.get(key, 0))
    return largest
