"""The sequence batcher: requests with the same correlation id go to one slot of one instance, one after the other.

The rules are Triton's. A sequence gets the free slot with the lowest number when its first request arrives, else it
waits in the backlog, and keeps the slot until the request with END is executed, no request has come for
`max_sequence_idle`, or a queued request is cancelled. Its state lies in the worker: it is lost when that one dies.
"""

import heapq
import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from broker.messages import ErrorCode
from broker.request import Request
from broker.schedulers.company import Company, plain
from broker.schedulers.controls import END, START, Controls
from broker.schedulers.lanes import DirectLane, Lane, OldestLane, Sequence, Worker
from broker.validation import Rejected
from configs.sequences import SequenceBatching

KNOWN_LOSSES = 1024
"""Sequences whose clients have not heard yet that they are lost; beyond, the oldest are forgotten."""
FORGOTTEN_TIMEOUTS = 100
"""So many timeouts of sequences that wait no more are kept for each look through all of them."""


class Refusal(NamedTuple):
    """A request that will not be executed, and why; `reason` is that of the statistics."""

    request: Request
    code: ErrorCode
    text: str
    reason: str


class SequenceScheduler:
    """The sequences of one model version. `survey` comes first in each round, then `pick` and `next_batch` in turn."""

    def __init__(self, settings: SequenceBatching, max_batch_size: int, company: Company = plain) -> None:
        """No sequences, no workers; `company` says what requests of one batch have in common."""
        self._company = company
        self.is_iterative = settings.is_iterative
        self._settings = settings
        self._max_batch_size = max_batch_size
        self._controls = Controls(settings, max_batch_size)
        self._lanes: dict[str, Lane] = {}  # by the worker's peer
        self._live: dict[int | str, Sequence] = {}  # those that requests may still join
        self._backlog: dict[Sequence, None] = {}  # in the order in which they get slots
        self._idle: dict[Sequence, None] = {}  # those with a slot that may yet be idle for too long, by last arrival
        self._timeouts: list[tuple[float, int, Sequence]] = []  # of the backlog
        self._queued: dict[Request, Sequence] = {}
        self._running: dict[Request, Sequence] = {}
        self._refused: list[Refusal] = []  # to be told by the next survey
        self.warnings: list[str] = []  # for the log; whoever surveys takes them out
        self._lost: dict[int | str, str] = {}  # sequences whose clients do not know yet -> why
        self._ids = itertools.count(1)
        self._numbers = itertools.count()  # of timeouts
        self._chosen: Lane | None = None
        self._now = 0.0
        self._is_closed = False

    # ------------------------------------------------------------------------------------------- requests

    def enqueue(self, request: Request) -> None:
        """See `Scheduler`. Raises Rejected."""
        self._check(request)
        infer = request.message
        sequence = self._live.get(infer.correlation_id)
        if sequence is None and not infer.flags & START:
            raise Rejected(self._start_missing(request))
        request.inputs = (*request.inputs, *self._controls.of(infer))
        if sequence is None:
            sequence = self._live[infer.correlation_id] = Sequence(infer.correlation_id, request.enqueued)
            self._backlog[sequence] = None
            self._lost.pop(sequence.id, None)
        elif infer.flags & START:
            self.warnings.append(
                f"sequence {sequence.id} for model '{request.version.model}' has a conflict. The previous sequence did "
                "not end before this sequence start. Previous sequence will be terminated early."
            )
        self._join(sequence, request)
        if infer.flags & END or self.is_iterative or self._is_closed:
            self._end(sequence)

    def _check(self, request: Request) -> None:
        model = request.version.model
        if request.batch > 1:
            raise Rejected(
                f"inference request to model '{model}' must specify batch-size 1 due to requirements of sequence "
                "batcher"
            )
        if not request.message.correlation_id:
            if not self.is_iterative:
                raise Rejected(
                    f"inference request to model '{model}' must specify a non-zero or non-empty correlation ID"
                )
            request.message = request.message._replace(correlation_id=self._new_id(), flags=START)

    def _new_id(self) -> int:
        return next(number for number in self._ids if number not in self._live)

    def _start_missing(self, request: Request) -> str:
        identity = request.message.correlation_id
        why = self._lost.pop(identity, "")
        return (
            f"inference request for sequence {identity} to model '{request.version.model}' must specify the START flag "
            f"on the first request of the sequence{why and ': '}{why}"
        )

    def _join(self, sequence: Sequence, request: Request) -> None:
        sequence.arrived = request.enqueued
        sequence.queue.append(request)
        self._queued[request] = sequence
        timeout = request.message.timeout_us / 1e6
        if sequence.lane is not None:
            sequence.lane.update(sequence)
            self._touch(sequence)
        elif timeout:
            sequence.deadline = min(sequence.deadline or float("inf"), request.enqueued + timeout)
            heapq.heappush(self._timeouts, (sequence.deadline, next(self._numbers), sequence))
            if len(self._timeouts) > 2 * len(self._backlog) + FORGOTTEN_TIMEOUTS:
                self._timeouts = [entry for entry in self._timeouts if self._is_waiting(entry)]
                heapq.heapify(self._timeouts)

    def _touch(self, sequence: Sequence) -> None:
        """It is the one that will be idle for too long last."""
        self._idle.pop(sequence, None)
        if not sequence.is_ending:
            self._idle[sequence] = None

    def _end(self, sequence: Sequence) -> None:
        """No request will join any more; the slot is free once those that have are executed."""
        sequence.is_ending = True
        self._idle.pop(sequence, None)
        if self._live.get(sequence.id) is sequence:
            del self._live[sequence.id]

    def _leave_if_over(self, sequence: Sequence) -> None:
        if not sequence.is_ending or sequence.queue or sequence.running is not None:
            return
        self._backlog.pop(sequence, None)
        if sequence.lane is not None:
            sequence.lane.leave(sequence)
            sequence.lane = None

    def readmit(self, request: Request) -> None:
        """See `Scheduler`: what came before is lost with the slot, so a request that has waited is refused."""
        self._refuse_lost(request, "the model's configuration has changed")

    def requeue(self, request: Request) -> None:
        """See `Scheduler`. Only the first request of a sequence can run at another worker."""
        sequence = self._running.pop(request, None)
        if sequence is not None and sequence.sent == 1:
            sequence.sent, sequence.running = 0, None
            sequence.queue.appendleft(request)
            self._queued[request] = sequence
        elif sequence is not None and sequence.lane is not None:
            self._refuse_lost(request, f"the worker of instance '{sequence.lane.worker.key}' died")
        else:
            self.readmit(request)

    def again(self, request: Request) -> None:
        """Its model wants to execute it once more (iterative sequences)."""
        sequence = self._running.pop(request)
        sequence.running = None
        request.message = request.message._replace(flags=0)
        own = request.inputs[: len(request.inputs) - len(self._controls)]
        request.inputs = (*own, *self._controls.of(request.message))
        sequence.queue.appendleft(request)
        self._queued[request] = sequence

    def remove(self, request: Request) -> bool:
        """See `Scheduler`. What has been queued behind it is cancelled, too, and the sequence ends."""
        sequence = self._queued.get(request)
        if sequence is None:
            return False
        while sequence.queue:
            last = sequence.queue.pop()
            del self._queued[last]
            if last is request:
                break
            self._refused.append(Refusal(last, ErrorCode.CANCELLED, "", "CANCELED"))
        self._end(sequence)
        if sequence.lane is not None:
            sequence.lane.update(sequence)
        self._leave_if_over(sequence)
        return True

    def drain(self) -> list[Request]:
        """See `Scheduler`. All sequences end."""
        requests = list(self._queued)
        self._queued.clear()
        for sequence in self._sequences():
            sequence.queue.clear()
            self._end(sequence)
            if sequence.lane is not None:
                sequence.lane.update(sequence)
            self._leave_if_over(sequence)
        return requests

    def close(self) -> None:
        """Another version has taken over: no sequence goes on beyond what is queued."""
        self._is_closed = True
        for sequence in self._sequences():
            self._end(sequence)
            self._leave_if_over(sequence)

    def mourn(self, others: "SequenceScheduler") -> None:
        """Tell the clients of sequences that another version of the model has had."""
        for identity in others.live():
            self._mourn(identity, "the model was loaded anew, and its sequences have ended")

    def _mourn(self, identity: int | str, why: str) -> None:
        self._lost[identity] = why
        if len(self._lost) > KNOWN_LOSSES:
            del self._lost[next(iter(self._lost))]

    def live(self) -> list[int | str]:
        """The ids of the sequences that have not ended."""
        return list(self._live)

    def place(self, request: Request) -> str:
        """The peer that a queued request waits for, "" when that is open."""
        sequence = self._queued.get(request)
        return "" if sequence is None or sequence.lane is None else str(sequence.lane.worker.peer)

    def holds(self, worker: Worker) -> bool:
        """Whether sequences need this worker."""
        lane = self._lanes.get(worker.peer)
        return lane is not None and bool(lane.sequences)

    def _sequences(self) -> list[Sequence]:
        return [*self._backlog, *[s for lane in self._lanes.values() for s in lane.sequences.values()]]

    def __len__(self) -> int:
        """See `Scheduler`."""
        return len(self._queued)

    # ------------------------------------------------------------------------------------------- batches

    def survey(self, workers: Iterable[Worker], now: float) -> list[Refusal]:
        """Look at what has changed: workers, executions, time. Gives up what cannot be executed any more."""
        self._now = now
        self._follow(workers)
        for lane in self._lanes.values():
            for sequence in lane.finished():
                if sequence.running is not None:
                    del self._running[sequence.running]
                    sequence.running = None
                lane.update(sequence)
                self._leave_if_over(sequence)
        self._end_idle(now)
        self._expire_backlog(now)
        self._seat(now)
        refused, self._refused = self._refused, []
        return refused

    def due(self) -> list[Worker]:
        """The workers that could execute a batch now."""
        return [lane.worker for lane in self._lanes.values() if lane.is_due(self._now)]

    def pick(self) -> Worker | None:
        """The first of these, for `next_batch`."""
        worker = next(iter(self.due()), None)
        if worker is not None:
            self.choose(worker)
        return worker

    def choose(self, worker: Worker) -> None:
        """Have `next_batch` give the batch of this worker."""
        self._chosen = self._lanes[worker.peer]

    def next_batch(self, now: float, is_idle: bool) -> list[Request]:
        """See `Scheduler`: the batch of the worker that was chosen. Rows of nobody are done already."""
        assert self._chosen is not None
        batch = self._chosen.take(now)
        for request in batch:
            if not request.is_done:
                self._running[request] = self._queued.pop(request)
        return batch

    def slots(self, batch: Iterable[Request]) -> tuple[int, ...]:
        """The slot of each request of a batch, for models whose state the worker keeps; else none."""
        if not self._settings.has_state:
            return ()
        return tuple(-1 if request.is_done else self._running[request].slot for request in batch)

    def expire(self, now: float) -> list[Request]:
        """See `Scheduler`: `survey` has given up what waited too long."""
        return []

    def deadline(self) -> float | None:
        """See `Scheduler`: `next_expiry` knows that, too."""
        return None

    def next_expiry(self) -> float | None:
        """See `Scheduler`: when `survey` or `pick` has something to do."""
        deadlines = [deadline for lane in self._lanes.values() if (deadline := lane.deadline()) is not None]
        times = [deadline for deadline in deadlines if deadline > self._now]  # what is due waits for something else
        if self._idle:
            times.append(next(iter(self._idle)).arrived + self._settings.max_idle)
        while self._timeouts and not self._is_waiting(self._timeouts[0]):
            heapq.heappop(self._timeouts)
        if self._timeouts:
            times.append(self._timeouts[0][0])
        return min(times, default=None)

    # ------------------------------------------------------------------------------------------- survey

    def _follow(self, workers: Iterable[Worker]) -> None:
        """Know the workers that there are now."""
        alive = {worker.peer: worker for worker in workers if worker.peer}
        for peer in [peer for peer in self._lanes if peer not in alive]:
            self._lose(self._lanes.pop(peer))
        for peer, worker in alive.items():
            if peer not in self._lanes and worker.is_ready:
                self._lanes[peer] = (
                    DirectLane(worker, self._settings, self._company, self._controls)
                    if self._settings.is_direct
                    else OldestLane(worker, self._settings, self._company, max(1, self._max_batch_size))
                )

    def _lose(self, lane: Lane) -> None:
        """A worker is gone, and with it the state of its sequences; those that had not begun wait for another slot."""
        saved: dict[Sequence, None] = {}
        for _, sequence in sorted(lane.sequences.items()):
            self._idle.pop(sequence, None)
            sequence.lane, sequence.slot, sequence.offered = None, -1, None
            if not sequence.sent:
                saved[sequence] = None
                continue
            if not sequence.is_ending:
                self._mourn(sequence.id, f"the worker of instance '{lane.worker.key}', which had its state, died")
            self._end(sequence)
            if sequence.running is not None:
                self._running.pop(sequence.running, None)
            for request in sequence.queue:
                del self._queued[request]
                self._refuse_lost(request, f"the worker of instance '{lane.worker.key}' died")
            sequence.queue.clear()
        self._backlog = {**saved, **self._backlog}

    def _refuse_lost(self, request: Request, why: str) -> None:
        text = f"sequence {request.message.correlation_id} of model '{request.version.model}' is lost: {why}"
        self._refused.append(Refusal(request, ErrorCode.UNAVAILABLE, text, "BACKEND"))

    def _end_idle(self, now: float) -> None:
        while self._idle and now >= (first := next(iter(self._idle))).arrived + self._settings.max_idle:
            self._end(first)
            self._leave_if_over(first)

    def _expire_backlog(self, now: float) -> None:
        while self._timeouts and self._timeouts[0][0] <= now:
            entry = heapq.heappop(self._timeouts)
            if self._is_waiting(entry):
                sequence = entry[2]
                for request in sequence.queue:
                    del self._queued[request]
                    text = "timeout of the corresponding sequence has been expired"
                    self._refused.append(Refusal(request, ErrorCode.UNAVAILABLE, text, "REJECTED"))
                sequence.queue.clear()
                self._end(sequence)
                self._leave_if_over(sequence)

    def _is_waiting(self, entry: tuple[float, int, Sequence]) -> bool:
        return entry[2] in self._backlog and entry[2].deadline == entry[0]

    def _seat(self, now: float) -> None:
        """Give free slots to the sequences that have waited longest."""
        while self._backlog:
            lane = min(self._open(), key=lambda each: each[0], default=None)
            if lane is None:
                return
            sequence = next(iter(self._backlog))
            del self._backlog[sequence]
            sequence.deadline = None
            sequence.arrived = now  # waiting for a slot is not idleness
            lane[1].seat(sequence)
            self._touch(sequence)

    def _open(self) -> Iterator[tuple[int, Lane]]:
        """The first free slot of each worker that may be given new sequences."""
        for lane in self._lanes.values():
            if lane.worker.is_ready and (slot := lane.lowest()) is not None:
                yield slot, lane
