"""Which instances load at the same time: so many, and as much as there is memory for; and how far each is. Pure."""

from collections import deque
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from broker.models import Instance, InstanceState, Model
from configs.namespaces import bare_name


class Limits(NamedTuple):
    """How many instances may load, and the bytes of memory for all of them together; 0: without limit."""

    instances: int
    byte_size: int


def fits(expected: int, loading: Collection[int], limits: Limits) -> bool:
    """Whether one more may begin, in bytes as those that are loading; the only one always may."""
    if not loading:
        return True
    has_room = not limits.byte_size or sum(loading) + expected <= limits.byte_size
    return has_room and (not limits.instances or len(loading) < limits.instances)


class Turns:
    """Instances that have not begun to load: the first is the next, so that a large one is not overtaken for ever."""

    def __init__(self, limits: Limits) -> None:
        """Nothing waits."""
        self._limits = limits
        self._waiting: deque[Instance] = deque()

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def add(self, instance: Instance) -> None:
        """It wants to load."""
        self._waiting.append(instance)

    def remove(self, instance: Instance) -> bool:
        """It does not want to any more; False when it did not wait."""
        if instance not in self._waiting:
            return False
        self._waiting.remove(instance)
        return True

    def next(self, workers: Iterable[Instance]) -> Instance | None:
        """Who may begin now, if anybody may: `workers` are all instances that have a process."""
        if not self._waiting:
            return None
        loading = [_expected(instance) for instance in workers if _takes_part(instance)]
        if not fits(_expected(self._waiting[0]), loading, self._limits):
            return None
        return self._waiting.popleft()


def _expected(instance: Instance) -> int:
    return instance.version.description.load_byte_size


def _takes_part(instance: Instance) -> bool:
    """It loads, or is killed while it does; who makes an environment first, however long that takes, does not yet."""
    if instance.state is InstanceState.STARTING:
        return instance.version.description.environment is None
    return instance.state is InstanceState.LOADING or (
        instance.state is InstanceState.DRAINING and instance.ready_at is None
    )


def phase(instance: Instance) -> str:
    """How far an instance is that is to be ready; `""`: it is, or will not be."""
    match instance.state:
        case InstanceState.QUEUED:
            return "queued"
        case InstanceState.STARTING:
            return "start" if instance.version.description.environment is None else "environment"
        case InstanceState.LOADING:
            return instance.phase
        case _:
            return ""


def report(models: Mapping[str, Model], now: float) -> dict[str, Any]:
    """What `/v2/health/loading` answers."""
    versions = [version for _, model in sorted(models.items()) for version in model.all_versions()]
    return {
        "loading": [
            {
                "name": bare_name(version.model),
                "version": str(version.number),
                "instance": instance.key,
                "phase": phase(instance),
                "seconds": round(now - instance.asked_at, 3),
                "expected_byte_size": version.description.load_byte_size,
            }
            for version in versions
            for instance in version.instances
            if phase(instance)
        ]
    }
