"""The dynamic batcher: requests that fit together wait, for a bounded time, to be executed together.

The rules are Triton's. Of the requests at the head of the queue that fit together, the largest preferred size is
sent as soon as it is reached; anything goes once the oldest request has waited for `max_queue_delay`.
"""

from collections.abc import Iterable
from itertools import islice

from broker.queue import PolicyQueue
from broker.request import Request
from broker.schedulers.company import Company, plain
from configs.description import DynamicBatching, Tenants


class DynamicScheduler:
    """A queue from which batches of up to `max_batch_size` are taken."""

    def __init__(
        self,
        settings: DynamicBatching,
        max_batch_size: int,
        company: Company = plain,
        tenants: Tenants | None = None,
    ) -> None:
        """Empty; `company` says what requests of one batch have in common, `tenants` who shares the model."""
        self._company = company
        self._queue = PolicyQueue(settings.policies, settings.default_priority_level, tenants)
        self._has_policies = settings.has_policies or tenants is not None
        self._preferred = frozenset(settings.preferred_batch_size) or frozenset({max_batch_size})
        self._largest = max(self._preferred)
        self._max_batch_size = max_batch_size
        self._delay = settings.max_queue_delay

    def enqueue(self, request: Request) -> None:
        """See `Scheduler`."""
        self._queue.enqueue(request)

    def readmit(self, request: Request) -> None:
        """See `Scheduler`."""
        self._queue.readmit(request)

    def requeue(self, request: Request) -> None:
        """See `Scheduler`."""
        self._queue.requeue(request)

    def expire(self, now: float) -> list[Request]:
        """See `Scheduler`."""
        return self._queue.expire(now)

    def next_expiry(self) -> float | None:
        """See `Scheduler`."""
        return self._queue.next_expiry()

    def remove(self, request: Request) -> bool:
        """See `Scheduler`."""
        return self._queue.remove(request)

    def drain(self) -> list[Request]:
        """See `Scheduler`."""
        return [self._queue.popleft() for _ in range(len(self._queue))]

    def __len__(self) -> int:
        """See `Scheduler`."""
        return len(self._queue)

    def next_batch(self, now: float, is_idle: bool) -> list[Request]:
        """See `Scheduler`. Behind a busy instance only batches of the largest preferred size queue up."""
        if not self._queue or (self._has_policies and not is_idle):
            return []
        count = self._plan(self._queue, now, is_idle)
        return [self._queue.popleft() for _ in range(count)]

    def is_due(self, now: float) -> bool:
        """Whether `next_batch` has something for an idle instance."""
        return bool(self._queue) and self._plan(self._queue, now, True) > 0

    def deadline(self) -> float | None:
        """See `Scheduler`: when the oldest request has waited long enough."""
        return self._oldest(self._queue) + self._delay if self._queue and self._delay else None

    def _oldest(self, requests: Iterable[Request]) -> float:
        """When the one that has waited longest, of those of them that a batch may have, was enqueued."""
        if self._has_policies:
            return min(request.enqueued for request in islice(requests, self._max_batch_size))
        return next(iter(requests)).enqueued

    def _plan(self, requests: Iterable[Request], now: float, is_idle: bool) -> int:
        """How many of these requests, from the first on, to send now."""
        size, marked, count, is_full = 0, 0, 0, False
        first = next(iter(requests))
        if first.is_solo:
            return 1  # no company to wait for
        company = self._company(first)
        for request in requests:
            if count and (
                size + request.batch > self._max_batch_size or request.is_solo or self._company(request) != company
            ):
                is_full = True
                break
            if size + request.batch > self._largest and not marked:
                marked = count
            size += request.batch
            count += 1
            if size in self._preferred:
                marked = count
        is_overdue = not self._delay or now >= self._oldest(requests) + self._delay
        if not is_idle and not is_full and size < self._largest:
            return 0
        if marked and not (self._delay and is_overdue):
            return marked
        if is_full or size >= self._largest or is_overdue:
            return count
        return 0
