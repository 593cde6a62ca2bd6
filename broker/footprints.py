"""What the processes of models have in memory, and what they have had at most: measured, never guessed. Pure."""

from collections.abc import Iterable, Mapping

from broker.models import Instance, InstanceState, Version
from broker.residency import CPU
from configs.description import Instance as InstanceSpec

_GPU = "gpu"


class Footprints:
    """The largest footprint of an instance of each model, while the server runs."""

    def __init__(self) -> None:
        """Nothing is known."""
        self._peaks: dict[tuple[str, int, str], dict[str, int]] = {}

    def measured(self, instance: Instance, memory: Mapping[str, int]) -> None:
        """An instance's process has so many bytes at each place."""
        instance.memory = dict(memory)
        if instance.state is not InstanceState.READY:
            return
        instance.is_measured = True
        peak = self._peaks.setdefault(_key(instance.version), {})
        for place, size in memory.items():
            kind = CPU if place == CPU else _GPU
            peak[kind] = max(peak.get(kind, 0), size)

    def expected(self, version: Version, specs: Iterable[InstanceSpec]) -> dict[str, int] | None:
        """What these instances of a model will have; None when nobody knows."""
        peak = self._peaks.get(_key(version))
        if peak is None:
            declared = version.residency.memory_budget
            return {CPU: declared} if declared else None
        found = {CPU: 0}
        for spec in specs:
            found[CPU] += peak.get(CPU, 0)
            if spec.device:
                found[spec.device] = found.get(spec.device, 0) + peak.get(_GPU, 0)
        return found

    def used(self, version: Version) -> dict[str, int]:
        """What the processes of a version have now; for one that is on its way, what it will have."""
        found: dict[str, int] = {}
        for instance in version.instances:
            memory = instance.memory
            is_going = instance.state in {InstanceState.DRAINING, InstanceState.FAILED}
            if not instance.is_measured and not is_going:
                expected = self.expected(version, [instance.spec]) if _key(version) in self._peaks else None
                memory = {**memory, **{p: max(size, memory.get(p, 0)) for p, size in (expected or {}).items()}}
            for place, size in memory.items():
                found[place] = found.get(place, 0) + size
        return found


def measured(instances: Iterable[Instance]) -> dict[str, int]:
    """What these processes had when they were measured last."""
    found: dict[str, int] = {}
    for instance in instances:
        for place, size in instance.memory.items():
            found[place] = found.get(place, 0) + size
    return found


def _key(version: Version) -> tuple[str, int, str]:
    return version.model, version.number, version.description.fingerprint
