"""The queue of a dynamic batcher: priority levels, each with its policy about length and waiting time. Pure.

However many wait, one more, one less and the next that times out cost the same: lines are ordered dictionaries, from
which anybody may leave, and the timeouts are a heap, in which who has left stays until there are too many of those.
"""

import heapq
import itertools
from collections import OrderedDict
from collections.abc import Iterator

from broker.request import Request
from broker.tenants import FairQueue
from configs.description import QueuePolicy, Tenants

_IDLE_EXPIRIES = 64
"""So many entries of requests that have left are not worth clearing up."""


class QueueFull(Exception):
    """The level's `max_queue_size` is reached."""


class Line(OrderedDict[Request, None]):
    """Requests in their order; the methods that a deque has, as far as they are needed."""

    def append(self, request: Request) -> None:
        """Take a request."""
        self[request] = None

    def appendleft(self, request: Request) -> None:
        """Take a request before all others."""
        self[request] = None
        self.move_to_end(request, last=False)

    def popleft(self) -> Request:
        """Take the request that is next."""
        return self.popitem(last=False)[0]

    def remove(self, request: Request) -> None:
        """Forget a request that is here."""
        del self[request]


class _Level:
    """One priority level. `delayed` have outlived their timeout and go when nothing else of the level is left."""

    def __init__(self, policy: QueuePolicy, tenants: Tenants | None) -> None:
        self.policy = policy
        self.fresh: Line | FairQueue = Line() if tenants is None else FairQueue(tenants)
        self.delayed = Line()

    def is_full(self, request: Request) -> bool:
        """Whether `max_queue_size` is reached; tenants have a queue each."""
        limit = self.policy.max_queue_size
        if not limit:
            return False
        return (len(self) if isinstance(self.fresh, Line) else self.fresh.queued(request)) >= limit

    def __len__(self) -> int:
        return len(self.fresh) + len(self.delayed)


class PolicyQueue:
    """Requests in the order in which they are to be executed: by level, within a level as they came.

    Where tenants share the model it is their turn that counts within a level.
    """

    def __init__(self, policies: dict[int, QueuePolicy], default_level: int, tenants: Tenants | None = None) -> None:
        """`policies` by level, 1 the most urgent; without priorities there is one level, 0."""
        self._levels = {level: _Level(policy, tenants) for level, policy in sorted(policies.items())}
        self._default_level = default_level
        self._first = Line()  # taken back from a dead worker: before all others
        self._expiries: list[tuple[float, int, Request]] = []
        self._most_expiries = _IDLE_EXPIRIES  # before those of requests that have left are cleared up
        self._numbers = itertools.count()

    def enqueue(self, request: Request) -> None:
        """Take a request, its timeout running since `request.enqueued`. Raises QueueFull."""
        if self._level_of(request).is_full(request):
            raise QueueFull
        self.readmit(request)

    def readmit(self, request: Request) -> None:
        """Take a request that has been accepted already: as `enqueue`, but the queue is never full."""
        level = self._level_of(request)
        level.fresh.append(request)
        timeout = _timeout(level.policy, request)
        if timeout:
            if len(self._expiries) > self._most_expiries:
                self._expiries = [entry for entry in self._expiries if self._is_fresh(entry[2])]
                heapq.heapify(self._expiries)
                self._most_expiries = _IDLE_EXPIRIES + 2 * len(self._expiries)
            heapq.heappush(self._expiries, (request.enqueued + timeout, next(self._numbers), request))

    def requeue(self, request: Request) -> None:
        """Take back, before all others, a request whose worker died. It does not time out any more."""
        self._first.appendleft(request)

    def expire(self, now: float) -> list[Request]:
        """The requests to be rejected because they have waited too long; others only move back."""
        rejected: list[Request] = []
        while self._expiries and self._expiries[0][0] <= now:
            _, _, request = heapq.heappop(self._expiries)
            level = self._level_of(request)
            if request not in level.fresh:
                continue
            level.fresh.remove(request)
            if level.policy.rejects:
                rejected.append(request)
            else:
                level.delayed.append(request)
        return rejected

    def next_expiry(self) -> float | None:
        """When `expire` has something to do."""
        while self._expiries and not self._is_fresh(self._expiries[0][2]):
            heapq.heappop(self._expiries)
        return self._expiries[0][0] if self._expiries else None

    def popleft(self) -> Request:
        """Take the request that is next."""
        if self._first:
            return self._first.popleft()
        for level in self._levels.values():
            if level.fresh:
                return level.fresh.popleft()
            if level.delayed:
                return level.delayed.popleft()
        raise IndexError("the queue is empty")

    def take(self, request: Request) -> None:
        """Take a request that is here, to run with one that is next."""
        lane = self._level_of(request).fresh
        if isinstance(lane, FairQueue) and request in lane:
            lane.take(request)
        else:
            self.remove(request)

    def remove(self, request: Request) -> bool:
        """Forget a request; False when it is not here."""
        for queue in self._queues():
            if request in queue:
                queue.remove(request)
                return True
        return False

    def __iter__(self) -> Iterator[Request]:
        """In the order of `popleft`."""
        return itertools.chain.from_iterable(self._queues())

    def __len__(self) -> int:
        """Requests in all levels."""
        return len(self._first) + sum(map(len, self._levels.values()))

    def _queues(self) -> Iterator[Line | FairQueue]:
        yield self._first
        for level in self._levels.values():
            yield level.fresh
            yield level.delayed

    def _level_of(self, request: Request) -> _Level:
        priority = request.message.priority
        return self._levels[priority if priority in self._levels else self._default_level]

    def _is_fresh(self, request: Request) -> bool:
        return request in self._level_of(request).fresh


def _timeout(policy: QueuePolicy, request: Request) -> float:
    """Seconds that the request may wait; 0: without end. A request may only shorten a timeout that there is."""
    own = request.message.timeout_us / 1e6
    if policy.allow_timeout_override and 0 < own < policy.default_timeout:
        return own
    return policy.default_timeout
