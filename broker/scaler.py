"""Counts that follow the load: models with a range of counts get instances and lose them. Pure; see `autoscaling`.

A count that was edited counts at once, and what was needed before does not take it back; one outside of the range
stays until it is edited again.
"""

from dataclasses import dataclass

from broker.autoscaling import Autoscaler, count_of, demand
from broker.census import Census
from broker.fleet import Fleet
from broker.models import Instance, Version, VersionState
from configs.description import Instance as InstanceSpec


@dataclass(slots=True)
class _Follower:
    """What is known of one version since the last look."""

    autoscaler: Autoscaler
    specs: tuple[InstanceSpec, ...]  # as configured
    looked: float
    busy: float = 0.0  # seconds that executions have taken in all


class Scaler:
    """Follows every version that has a range."""

    def __init__(self, fleet: Fleet, census: Census) -> None:
        """`census` knows what there is room for."""
        self._fleet = fleet
        self._census = census
        self._followers: dict[Version, _Follower] = {}

    def tick(self, now: float) -> None:
        """About once a second."""
        versions = [v for model in self._fleet.models.values() for v in model.versions.values()]
        ranged = [v for v in versions if v.residency.max_count and v.state is VersionState.READY and not v.is_cold]
        self._followers = {version: self._follower(version, now) for version in ranged}
        for version, follower in self._followers.items():
            self._follow(version, follower, now)

    def _follower(self, version: Version, now: float) -> _Follower:
        specs = version.description.instances
        follower = self._followers.get(version)
        if follower is None:
            return _Follower(Autoscaler(now), specs, now, _busy_seconds(version))
        if follower.specs != specs:
            follower.specs = specs
            follower.autoscaler.restart(now)
        return follower

    def _follow(self, version: Version, follower: _Follower, now: float) -> None:
        ready = [instance for instance in version.instances if instance.is_ready]
        passed = now - follower.looked
        if passed <= 0 or not ready:
            return
        busy_seconds = _busy_seconds(version)
        long_ones = sum(1 for i in ready if i.attempts and now - i.busy_since >= passed)
        busy = min(float(len(ready)), (busy_seconds - follower.busy) / passed + long_ones)
        follower.looked, follower.busy = now, busy_seconds
        groups = len(version.description.instances) / count_of(version.description.instances)
        follower.autoscaler.observe(demand(busy, *_waiting(version, ready)) / groups, now)
        low, high = version.residency.min_count, version.residency.max_count
        configured = count_of(version.description.instances)
        count = configured if version.count is None else version.count
        if version.is_coming or not max(low, 1) <= configured <= high:
            return
        wanted = follower.autoscaler.decide(count, low, high, now)
        while wanted > count and not self._census.affords(version, wanted):
            wanted -= 1
        if wanted != count:
            self._fleet.set_count(version, wanted, now)


def _waiting(version: Version, ready: list[Instance]) -> tuple[int, int]:
    """How many requests wait because all instances are busy, and how many of them make a batch."""
    batch = version.signature.max_batch_size
    if not all(instance.attempts for instance in ready):
        return 0, batch
    behind = sum(len(a.requests) for i in ready for number, a in i.attempts.items() if number != min(i.attempts))
    return len(version.scheduler) + behind, batch


def _busy_seconds(version: Version) -> float:
    version.statistics.settle()
    stages = [
        stage
        for batches in version.statistics.batches.values()
        for stage in (batches.compute_input, batches.compute_infer, batches.compute_output)
    ]
    return sum(stage.ns for stage in stages) / 1e9
