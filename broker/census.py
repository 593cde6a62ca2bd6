"""Who is in memory, who wants to be, and what they take: what `residency` decides on. Pure."""

from collections.abc import Iterator

from broker import residency
from broker.fleet import Fleet
from broker.footprints import Footprints
from broker.messages import MemorySampled
from broker.models import COMING, InstanceState, Version, VersionState
from broker.residency import CPU, Memory, Phase, Tenant
from configs.server import ServerConfig

MEASURE_SECONDS = 0.25
"""While something loads under a budget, memory is measured so often."""
ZERO_SECONDS = 60.0
"""How long a model stays idle that may have no instance and says nothing else."""


class Census:
    """Looks at the fleet, and remembers what its processes have taken."""

    def __init__(self, fleet: Fleet, config: ServerConfig, epoch_offset: float) -> None:
        """`epoch_offset` as in `Core`."""
        self._fleet = fleet
        self._models = fleet.models
        self._is_mode = config.model_control_mode == "on-demand"
        self._ttl = config.model_idle_ttl
        self._limits = (config.model_memory_budget, config.model_gpu_memory_budget)
        self._epoch_offset = epoch_offset
        self._footprints = Footprints()
        self._next_measure = 0.0
        self.awaited: dict[Version, float] = {}  # those that have to be loaded -> since when
        self.has_budget = any(self._limits)

    def budget(self) -> Memory:
        """The limits that there are, by place."""
        cpu, gpu = self._limits
        specs = (s for m in self._models.values() for v in m.all_versions() for s in v.description.instances)
        devices = {spec.device for spec in specs if spec.device} if gpu else set()
        return {**({CPU: cpu} if cpu else {}), **dict.fromkeys(sorted(devices), gpu)}

    def sampled(self, message: MemorySampled) -> None:
        """The processes' memory has been measured."""
        for instance in self._fleet.workers.values():
            if instance.pid in message.pss:
                memory = {CPU: message.pss[instance.pid], **message.gpus.get(instance.pid, {})}
                self._footprints.measured(instance, memory)

    def affords(self, version: Version, count: int) -> bool:
        """Whether there is room for a version to have so many instances in each group."""
        used, expected = self._footprints.used(version), self._footprints.expected(version, version.at_count(count))
        if expected is None:
            return not self.has_budget
        limit = version.residency.memory_budget
        if limit and expected.get(CPU, 0) > limit:
            return False
        free = residency.room(self.tenants(), self.budget())
        return all(expected.get(place, 0) - used.get(place, 0) <= max(0, size) for place, size in free.items())

    def wants_sample(self, now: float) -> bool:
        """Whether memory should be measured now: a budget has to reckon with what was not measured yet."""
        if now < self._next_measure:
            return False
        self._next_measure = now + MEASURE_SECONDS
        workers = self._fleet.workers.values() if self.has_budget else ()
        return any(i.state in COMING or (i.is_ready and not i.is_measured) for i in workers)

    def next_deadline(self) -> float | None:
        """When `wants_sample` may say yes."""
        return self._next_measure if self.has_budget and self._fleet.workers else None

    def tenants(self) -> list[Tenant[Version]]:
        """Every version that has memory, or wants some."""
        return list(self._tenants())

    def _tenants(self) -> Iterator[Tenant[Version]]:
        for model in self._models.values():
            for version in model.all_versions():
                if version.instances:
                    yield self._resident(version)
        for version, since in self.awaited.items():
            if version.count == 0 and not version.description.steps:
                specs = version.at_count(version.first_count)
                yield Tenant(
                    version,
                    Phase.AWAITED,
                    expected=self._footprints.expected(version, specs),
                    places=(CPU, *sorted({spec.device for spec in specs if spec.device})),
                    waits_since=since,
                )

    def _resident(self, version: Version) -> Tenant[Version]:
        ready = [instance.ready_at for instance in version.instances if instance.ready_at is not None]
        used_at = version.statistics.last_inference / 1000 - self._epoch_offset
        loaded_at = max([version.load_began or 0.0, *ready])
        is_bound = version.sequences is not None and bool(version.sequences.live())
        return Tenant(
            version,
            self._phase(version),
            self._footprints.used(version),
            self._footprints.expected(version, version.wanted),
            is_busy=is_bound or self._is_busy(version),
            is_bound=is_bound,
            is_kept=not self._is_allowed_to_leave(version),
            idle_ttl=self._idle_ttl(version),
            last_used=max(loaded_at, used_at),
            loaded_at=loaded_at,
        )

    def _phase(self, version: Version) -> Phase:
        if version.count == 0 or version.state in {VersionState.UNLOADING, VersionState.UNAVAILABLE}:
            return Phase.LEAVING
        is_measured = not self.has_budget or all(
            i.is_measured for i in version.instances if i.state is InstanceState.READY
        )
        is_coming = version.is_coming or version.is_cold or version.state is VersionState.LOADING
        return Phase.RESIDENT if is_measured and not is_coming else Phase.LOADING

    def _is_busy(self, version: Version) -> bool:
        is_streaming = any(instance.streams for instance in version.instances)
        return bool(version.executing or version.scheduler or version.calls or is_streaming)

    def may_sleep(self, version: Version) -> bool:
        """Whether it may leave memory once it is idle."""
        is_served = version.state is VersionState.READY and not version.description.steps
        return is_served and self._is_allowed_to_leave(version)

    def _is_allowed_to_leave(self, version: Version) -> bool:
        wish = version.residency
        return (self._is_mode and not wish.is_pinned) or (wish.max_count > 0 and wish.min_count == 0)

    def _idle_ttl(self, version: Version) -> float:
        if version.residency.idle_ttl is not None:
            return version.residency.idle_ttl
        return self._ttl or (0.0 if version.residency.min_count else ZERO_SECONDS)
