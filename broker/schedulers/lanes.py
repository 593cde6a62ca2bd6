"""The slots of one worker: which sequences it holds, and which of their requests run together. Pure.

A worker executes one batch at a time, with at most one request of each sequence.
"""

import heapq
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Protocol

from broker.messages import NOBODY
from broker.request import Request
from broker.schedulers.company import Company
from broker.schedulers.controls import Controls
from broker.schedulers.dynamic import DynamicScheduler
from configs.description import DynamicBatching
from configs.sequences import SequenceBatching


class Worker(Protocol):
    """What is to be known of an instance (`models.Instance`); `peer` is the process that hosts it now."""

    peer: str
    attempts: dict[int, Any]

    @property
    def key(self) -> str:
        """The instance's name."""

    @property
    def is_ready(self) -> bool:
        """It may be given new sequences."""


@dataclass(slots=True, eq=False)
class Sequence:
    """Requests that belong together, from the one with START to the one with END."""

    id: int | str
    arrived: float  # its last request
    queue: deque[Request] = field(default_factory=deque)
    lane: "Lane | None" = None  # None: it waits for a slot
    slot: int = -1
    offered: Request | None = None  # to its lane's batcher
    running: Request | None = None
    sent: int = 0  # requests that its worker has been given
    deadline: float | None = None  # until when it may wait for a slot
    is_ending: bool = False  # no request will join it any more


class Lane(ABC):
    """The slots of one worker."""

    def __init__(self, worker: Worker, settings: SequenceBatching) -> None:
        """All slots are free."""
        self.worker = worker
        self.sequences: dict[int, Sequence] = {}  # by slot
        self._free = list(range(settings.slots))
        self._flight: list[Sequence] = []
        self._last: Request | None = None  # one of the batch that was sent last

    def lowest(self) -> int | None:
        """The first slot that is free."""
        return self._free[0] if self._free else None

    def seat(self, sequence: Sequence) -> None:
        """Give a sequence the first free slot."""
        sequence.lane, sequence.slot = self, heapq.heappop(self._free)
        self.sequences[sequence.slot] = sequence
        self.update(sequence)

    def leave(self, sequence: Sequence) -> None:
        """The sequence is over."""
        self.update(sequence)
        del self.sequences[sequence.slot]
        heapq.heappush(self._free, sequence.slot)

    def finished(self) -> Collection[Sequence]:
        """The sequences of the batch that has been executed; each batch's once."""
        if self._last is None or self._last.attempt in self.worker.attempts:
            return ()
        self._last, flight, self._flight = None, self._flight, []
        return flight

    @abstractmethod
    def update(self, sequence: Sequence) -> None:
        """The head of the sequence's queue has changed, or it runs no more."""

    @abstractmethod
    def is_due(self, now: float) -> bool:
        """There is a batch to execute now."""

    @abstractmethod
    def deadline(self) -> float | None:
        """When there will be one without another request; None: never, or now."""

    @abstractmethod
    def take(self, now: float) -> list[Request]:
        """That batch."""

    def _send(self, sequence: Sequence) -> Request:
        self._last = sequence.running = request = sequence.queue.popleft()
        sequence.sent += 1
        self._flight.append(sequence)
        return request


class DirectLane(Lane):
    """Strategy direct: the row of a batch is the slot. Slots below the last one that is ready take part without a
    request."""

    def __init__(self, worker: Worker, settings: SequenceBatching, company: Company, controls: Controls) -> None:
        """All slots are free; `company` says what requests of one batch have in common."""
        super().__init__(worker, settings)
        self._company = company
        self._controls = controls
        self._ready: dict[int, Sequence] = {}
        self._slots = settings.slots
        self._wanted = settings.minimum_slot_utilization
        self._delay = settings.max_queue_delay if self._wanted else 0.0

    def update(self, sequence: Sequence) -> None:
        """See `Lane`."""
        if sequence.queue and sequence.running is None:
            self._ready[sequence.slot] = sequence
        else:
            self._ready.pop(sequence.slot, None)

    def is_due(self, now: float) -> bool:
        """See `Lane`."""
        if not self._ready or self.worker.attempts:
            return False
        return not self._delay or len(self._ready) / self._slots >= self._wanted or now >= self._oldest() + self._delay

    def deadline(self) -> float | None:
        """See `Lane`."""
        if not self._delay or not self._ready or self.worker.attempts:
            return None
        return self._oldest() + self._delay

    def _oldest(self) -> float:
        return min(sequence.queue[0].enqueued for sequence in self._ready.values())

    def take(self, now: float) -> list[Request]:
        """See `Lane`."""
        first = self._ready[min(self._ready)].queue[0]
        company = self._company(first)
        equal = {slot: s for slot, s in self._ready.items() if self._company(s.queue[0]) == company}
        rows = []
        for slot in range(max(equal) + 1):
            if slot in equal:
                rows.append(self._send(equal[slot]))
                self.update(equal[slot])
            else:
                rows.append(self._nobody(first, now))
        return rows

    def _nobody(self, like: Request, now: float) -> Request:
        """A row without a request: inputs that mean nothing, and an answer that nobody gets."""
        message = like.message._replace(
            request_id="", correlation_id=0, flags=0, parameters={}, outputs=(), targets=(), priority=0, timeout_us=0
        )
        own = like.inputs[: len(like.inputs) - len(self._controls)]
        inputs = (*own, *self._controls.of_nobody())
        return Request(NOBODY, message, like.version, inputs, 1, now, is_done=True)


class OldestLane(Lane):
    """Strategy oldest: the first request of each sequence joins a dynamic batcher."""

    def __init__(self, worker: Worker, settings: SequenceBatching, company: Company, max_batch_size: int) -> None:
        """All slots are free; `company` says what requests of one batch have in common."""
        super().__init__(worker, settings)
        batching = DynamicBatching(settings.preferred_batch_size, settings.max_queue_delay)
        self._batcher = DynamicScheduler(batching, max_batch_size, company)
        self._offered: dict[Request, Sequence] = {}

    def update(self, sequence: Sequence) -> None:
        """See `Lane`."""
        head = sequence.queue[0] if sequence.queue and sequence.running is None else None
        if head is sequence.offered:
            return
        if sequence.offered is not None and self._offered.pop(sequence.offered, None) is not None:
            self._batcher.remove(sequence.offered)
        sequence.offered = head
        if head is not None:
            self._offered[head] = sequence
            self._batcher.enqueue(head)

    def is_due(self, now: float) -> bool:
        """See `Lane`."""
        return not self.worker.attempts and self._batcher.is_due(now)

    def deadline(self) -> float | None:
        """See `Lane`."""
        return None if self.worker.attempts else self._batcher.deadline()

    def take(self, now: float) -> list[Request]:
        """See `Lane`."""
        batch = self._batcher.next_batch(now, True)
        for request in batch:
            sequence = self._offered.pop(request)
            sequence.offered = None
            self._send(sequence)
        return batch
