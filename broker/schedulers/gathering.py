"""The dynamic batcher for models whose requests come in many kinds: those of one kind are gathered from the queue.

Nobody is overtaken but by those that run with somebody before them, or while waiting for company: the kind of the
request that is next goes first as soon as it may.
"""

from itertools import islice

from broker.request import Request
from broker.schedulers.dynamic import DynamicScheduler

LOOK_AHEAD = 256
"""So many requests from the head of the queue are looked at."""


class GatheringScheduler(DynamicScheduler):
    """As `DynamicScheduler`, which ends a batch where a request of another kind comes."""

    def next_batch(self, now: float, is_idle: bool) -> list[Request]:
        """See `Scheduler`: a batch of the first kind that need not wait."""
        if not self._queue or (self._has_policies and not is_idle):
            return []
        for group in self._groups():
            count = self._plan(group, now, is_idle)
            if count:
                for request in group[:count]:
                    self._queue.take(request)
                return group[:count]
        return []

    def deadline(self) -> float | None:
        """See `Scheduler`: of the requests that are looked at."""
        return min(map(self._oldest, self._groups())) + self._delay if self._queue and self._delay else None

    def _seen(self) -> list[Request]:
        return list(islice(self._queue, LOOK_AHEAD))

    def _groups(self) -> list[list[Request]]:
        """What could run together, in the order in which the first of each came."""
        groups: dict[object, list[Request]] = {}
        for request in self._seen():
            groups.setdefault(request if request.is_solo else self._company(request), []).append(request)
        return list(groups.values())
