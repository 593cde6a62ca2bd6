"""A round of the core around a sequence scheduler, for tests: workers that take, finish, and die; requests in words."""

import itertools
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from broker.request import Request
from broker.schedulers.sequence import Refusal, SequenceScheduler
from configs.sequences import Control, SequenceBatching
from tests.unit.broker.describe import infer

START, END = 1, 2
CONTROLS = (
    Control("START", "START", "INT32", 0, 1),
    Control("END", "END", "FP32", 0, 1),
    Control("READY", "READY", "BOOL", False, True),
    Control("CORRID", "ID", "UINT64"),
)


def settings(slots: int = 2, idle: float = 10.0, is_direct: bool = True, **changes: Any) -> SequenceBatching:
    """Of a model that batches as many requests as it has slots."""
    preferred = () if is_direct else (slots,)
    return SequenceBatching(is_direct, slots, idle, **{"preferred_batch_size": preferred, **changes})


@dataclass(eq=False)
class FakeWorker:
    """As much of an instance as the scheduler sees."""

    key: str
    peer: str
    attempts: dict[int, list[Request]] = field(default_factory=dict)
    is_ready: bool = True


class Round:
    """The core's part of it, and a book of what became of each request."""

    def __init__(self, batching: SequenceBatching, workers: int = 1, max_batch_size: int = 8) -> None:
        self.scheduler = SequenceScheduler(batching, max_batch_size)
        self.workers = [FakeWorker(f"m_{n}", f"w{n}") for n in range(workers)]
        self.version = SimpleNamespace(model="m")
        self.now = 0.0
        self.refused: list[Refusal] = []
        self.sent: list[tuple[str, list[Request]]] = []  # batches: the worker's peer, rows
        self._numbers = itertools.count(1)

    def ask(self, identity: int | str, flags: int = 0, size: int = 4, **changes: Any) -> Request:
        """A request arrives. Raises Rejected."""
        batch = changes.pop("batch", 1)
        message = infer(next(self._numbers), shape=(batch, size), correlation_id=identity, flags=flags, **changes)
        request = Request("h1", message, self.version, message.inputs, batch, self.now)
        self.scheduler.enqueue(request)
        self.dispatch()
        return request

    def dispatch(self) -> None:
        """What `Requests.dispatch` does."""
        self.refused += self.scheduler.survey(self.workers, self.now)
        while len(self.scheduler):
            worker = self.scheduler.pick()
            if worker is None:
                break
            assert not worker.attempts
            batch = self.scheduler.next_batch(self.now, True)
            assert batch
            number = next(self._numbers)
            worker.attempts[number] = batch
            for request in batch:
                request.attempt = number
            self.sent.append((worker.peer, batch))

    def finish(self, worker: int = 0, again: tuple[Request, ...] = ()) -> list[Request]:
        """A worker has executed its batch: the rows that were requests."""
        ((_, batch),) = self.workers[worker].attempts.items()
        self.workers[worker].attempts.clear()
        for request in again:
            self.scheduler.again(request)
        self.dispatch()
        return [request for request in batch if not request.is_done]

    def die(self, worker: int = 0, began: bool = True) -> None:
        """A worker dies, and another takes its place."""
        dead = self.workers[worker]
        held = [r for batch in dead.attempts.values() for r in batch if not r.is_done]
        dead.attempts.clear()
        dead.peer += "'"
        for request in reversed([] if began else held):
            self.scheduler.requeue(request)
        self.dispatch()

    def wait(self, seconds: float) -> None:
        """Time passes; the scheduler is asked whenever it wants to be."""
        end = self.now + seconds
        turns = 0
        while (due := self.scheduler.next_expiry()) is not None and due <= end:
            turns += 1
            assert turns < 1000, "it asks to be called again and again"
            self.now = max(self.now, due)
            self.dispatch()
        self.now = end

    def rows(self, index: int = -1) -> list[int | str]:
        """The correlation ids of a batch; 0 for a row of nobody."""
        return [request.message.correlation_id for request in self.sent[index][1]]
