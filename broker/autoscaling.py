"""How many instances a model with a range of counts should have now: numbers and times in, a count out. Pure.

Up at once when there is more to do for a moment, at most twice as many; down only to what the busiest moment of the
last minute has needed, so that a short lull costs no loading.
"""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from configs.description import Instance

UP_SECONDS = 2.0
"""So long has more to be needed before instances are added."""
DOWN_SECONDS = 60.0
"""So long has less to be needed before instances are taken away."""
UTILISATION = 0.8
"""The share of their time that instances should be busy."""
EPSILON = 1e-6


@dataclass(slots=True)
class Autoscaler:
    """One model version: what it has needed lately."""

    began: float
    _needs: deque[tuple[float, int]] = field(default_factory=deque)  # (time, instances), the last minute's

    def observe(self, demand: float, now: float) -> None:
        """So many instances would have been busy all the time, with what is queued counted in."""
        self._needs.append((now, math.ceil(demand / UTILISATION - EPSILON)))
        while self._needs[0][0] < now - DOWN_SECONDS:
            self._needs.popleft()

    def decide(self, count: int, low: int, high: int, now: float) -> int:
        """How many instances there should be, where there are `count`; at least `low` and 1, at most `high`."""
        low = max(low, 1)
        up = min(self._since(now - UP_SECONDS), default=0)
        if up > count and now - self.began >= UP_SECONDS:
            return max(low, min(high, up, 2 * count))
        down = max(self._since(now - DOWN_SECONDS), default=count)
        if down < count and now - self.began >= DOWN_SECONDS:
            return min(high, max(low, down))
        return min(high, max(low, count))

    def restart(self, now: float) -> None:
        """Somebody has set the count by hand: what was needed before does not take it back."""
        self.began = now
        self._needs.clear()

    def _since(self, when: float) -> Iterable[int]:
        return [need for time, need in self._needs if time >= when]


def demand(busy: float, queued: int, batch: int) -> float:
    """The instances that would have been busy: those that were, and one for each batch that waits."""
    return busy + math.ceil(queued / max(1, batch))


def at_count(specs: Iterable[Instance], count: int) -> tuple[Instance, ...]:
    """The instances of a model's groups with another `count` for each group (and each of its GPUs)."""
    groups: dict[tuple[str, str], Instance] = {}
    for spec in specs:
        groups.setdefault((_group(spec), spec.device), spec)
    return tuple(
        replace(spec, name=f"{group}_{number}") for (group, _), spec in groups.items() for number in range(count)
    )


def count_of(specs: Iterable[Instance]) -> int:
    """The largest `count` of a model's groups."""
    found: dict[tuple[str, str], int] = {}
    for spec in specs:
        key = (_group(spec), spec.device)
        found[key] = found.get(key, 0) + 1
    return max(found.values(), default=0)


def _group(spec: Instance) -> str:
    return spec.name.rpartition("_")[0]
