"""Requests that their model answers by itself, with any number of responses, while it executes or afterwards."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

from broker.messages import COMPLETE, NOBODY, STREAM_CREDIT, Credit, ErrorCode, Item, Part, Responded, Result
from workers.connection import Connection
from workers.errors import BackendError
from workers.outcome import Outcome, Output, Response
from workers.outputs import Outputs
from workers.states import States
from workers.tracer import Tracer

WARM_UP = -1
"""The attempt number of executions that nobody asked for."""

Divert: TypeAlias = Callable[[int, Outcome | None, int], None]
"""Takes the responses of requests that nobody sent: the request's index in its batch, the response, its part."""


class SendRefused(Exception):
    """A response sender was used in a way that its mode does not allow."""


class Streams:
    """The streams of one worker. A stream is opened when a model first asks for it."""

    def __init__(self, connection: Connection, outputs: Outputs, tracer: Tracer) -> None:
        """Nothing is open."""
        self.tracer = tracer
        self.connection = connection
        self.outputs = outputs
        self.lock = threading.Lock()
        self.failed: Callable[[Item, Result], None] | None = None  # is told of errors
        self.states: States | None = None
        self.slots: Sequence[int] = ()  # of the requests that are being executed, where they have states
        self._open: dict[tuple[int, int], Stream] = {}
        self._abandoned: set[tuple[int, int]] = set()  # requests that may still be executed
        self._finished = WARM_UP - 1  # the last attempt that was executed
        self.divert: Divert | None = None

    def open(self, attempt: int, index: int, item: Item, is_decoupled: bool) -> "Stream":
        """The stream of a request that is being executed, the same one each time."""
        self.connection.share()
        key = (attempt, index)
        with self.lock:
            stream = self._open.get(key)
            if stream is None:
                stream = Stream(self, key, item, is_decoupled)
                stream.is_cancelled = key in self._abandoned or item.reader == NOBODY
                if attempt > self._finished:
                    self._open[key] = stream
                else:
                    stream.close()
            return stream

    def abandon(self, attempt: int, index: int) -> None:
        """The client of a request is gone."""
        key = (attempt, index)
        with self.lock:
            stream = self._open.get(key)
            if stream is not None:
                stream.cancel()
            elif attempt > self._finished:
                self._abandoned.add(key)

    def credit(self, message: Credit) -> None:
        """A client has taken responses."""
        with self.lock:
            stream = self._open.get((message.attempt, message.item))
            if stream is not None:
                stream.receive(message.responses)

    def executed(self, attempt: int) -> None:
        """An attempt's `execute` has returned."""
        self._finished = attempt
        if self._abandoned:
            with self.lock:
                self._abandoned = {key for key in self._abandoned if key[0] > attempt}

    @contextmanager
    def diverted(self, divert: Divert) -> Iterator[None]:
        """Within, responses go to `divert` instead of clients."""
        self.divert = divert
        try:
            yield
        finally:
            self.divert = None

    def forget(self, key: tuple[int, int]) -> None:
        """A stream has had its last response; the caller holds the lock."""
        del self._open[key]


class Stream:
    """The responses to one request. Methods take the lock of all streams, but for those that say otherwise.

    At most STREAM_CREDIT responses are ahead of what the client has taken. Beyond, `send` waits; on a thread that runs
    an event loop, whose other coroutines must go on, the response waits instead, in memory of this process.
    """

    def __init__(self, streams: Streams, key: tuple[int, int], item: Item, is_decoupled: bool) -> None:
        """A request that is not decoupled has exactly one response."""
        self._streams = streams
        self._key = key
        self._item = item
        self._is_decoupled = is_decoupled
        self._slot = streams.slots[key[1]] if streams.slots else -1
        self._credit = STREAM_CREDIT
        self._waiting: deque[tuple[Outcome | None, int]] = deque()  # for credit
        self._room: threading.Condition | None = None  # made when a thread has to wait
        self._has_response = False
        self._is_closed = False  # the model has sent its last
        self._is_answered = False  # the broker has been sent the last
        self.is_cancelled = False

    def send(self, outcome: Outcome | None, is_last: bool) -> None:
        """Send a response, or (None) only the end. What nobody waits for any more is dropped. Raises SendRefused."""
        with self._streams.lock:
            self._check(outcome, is_last)
            self._is_closed = self._is_closed or is_last
            self._has_response = self._has_response or outcome is not None
            if self._streams.states is not None:
                outcome = self._streams.states.take(self._slot, outcome)
            part = (Part.NONE if outcome is None else Part.CONTENT) | (Part.FINAL if is_last else Part.NONE)
            if self._is_decoupled:
                self._send_in_order(outcome, part)
            elif outcome is not None:
                self._deliver(outcome, COMPLETE)  # it is the only one, whenever the model says so

    def fail(self, error: BackendError) -> None:
        """End the stream with an error, unless the model has ended it."""
        with self._streams.lock:
            if self._is_closed:
                return
            self._is_closed = True
            if self._waiting:
                self._waiting.append((error, COMPLETE))
            else:
                self._deliver(error, COMPLETE)

    def withdraw(self) -> bool:
        """Close a stream whose request is answered in another way; False when its model has used it."""
        with self._streams.lock:
            if self._has_response or self._is_closed:
                return False
            self.close()
            self._streams.forget(self._key)
            return True

    def leave(self) -> bool:
        """Close a stream whose request is executed once more, with another; False when its model has ended it."""
        with self._streams.lock:
            if self._is_closed:
                return False
            while self._waiting:
                self._deliver(*self._waiting.popleft())
            self.close()
            self._streams.forget(self._key)
            return True

    def drop(self) -> None:
        """The model has let go of the request and of its sender: nobody can end the stream. Takes no lock."""
        if not self._is_closed and not self._is_answered:
            self._streams.connection.post(self._fail_dropped)

    def close(self) -> None:
        """The request has been answered. The caller holds the lock."""
        self._is_closed = self._is_answered = True

    def cancel(self) -> None:
        """The client is gone. The caller holds the lock."""
        self.is_cancelled = True
        is_ended = any(part & Part.FINAL for _, part in self._waiting)
        self._waiting.clear()
        if is_ended:
            self._deliver(None, Part.FINAL)
        self._let_go_on()

    def receive(self, credit: int) -> None:
        """The client has taken responses. The caller holds the lock."""
        self._credit += credit
        while self._waiting and (self._credit > 0 or not _takes_credit(self._waiting[0][0])):
            outcome, part = self._waiting.popleft()
            self._credit -= _takes_credit(outcome)
            self._deliver(outcome, part)
        self._let_go_on()

    # ------------------------------------------------------------------------------------------- under the lock

    def _check(self, outcome: Outcome | None, is_last: bool) -> None:
        if not self._is_decoupled:
            if outcome is not None and self._has_response:
                raise SendRefused("Unable to send response. Non-decoupled model cannot send more than one response.")
            if outcome is None and is_last and not self._has_response:
                raise SendRefused(
                    "Unable to send response. Non-decoupled model cannot send complete final before sending a response."
                )
        if self._is_closed:
            raise SendRefused("Unable to send response. Response sender has been closed.")

    def _send_in_order(self, outcome: Outcome | None, part: int) -> None:
        """Send as soon as there is credit, after what waits already."""
        costs = _takes_credit(outcome)
        while (self._waiting or (costs and self._credit <= 0)) and not self.is_cancelled and not self._is_answered:
            if not costs or _runs_an_event_loop():
                self._waiting.append((_detached(outcome), part))
                return
            if self._room is None:
                self._room = threading.Condition(self._streams.lock)
            self._room.wait()
        self._credit -= costs
        self._deliver(outcome, part)

    def _deliver(self, outcome: Outcome | None, part: int) -> None:
        """Hand a response to the broker. An error is always the last."""
        if self._is_answered:
            return
        if self._streams.divert is not None:
            self._deliver_to(self._streams.divert, outcome, part)
            return
        if outcome is None or (self.is_cancelled and isinstance(outcome, Response)):
            if not part & Part.FINAL:
                return
            result = Result(ErrorCode.OK, "", (), {}, Part.FINAL)
        else:
            result = self._streams.outputs.result(self._item, outcome, part)
            if self._item.trace:
                self._streams.tracer.output(*self._key, self._item, outcome)
            if result.code != ErrorCode.OK and self._streams.failed is not None:
                self._streams.failed(self._item, result)
        if result.part & Part.FINAL:
            self._is_answered = True
            self._streams.forget(self._key)
            self._let_go_on()
        self._streams.connection.send(Responded(*self._key, result))

    def _deliver_to(self, divert: Divert, outcome: Outcome | None, part: int) -> None:
        self._credit += _takes_credit(outcome)
        if isinstance(outcome, BackendError):
            part |= Part.FINAL
        if part & Part.FINAL:
            self._is_answered = True
            self._streams.forget(self._key)
        divert(self._key[1], outcome, part)

    def _let_go_on(self) -> None:
        if self._room is not None:
            self._room.notify_all()

    def _fail_dropped(self) -> None:
        self.fail(
            BackendError(
                ErrorCode.INTERNAL,
                "the model has dropped the request's response sender without TRITONSERVER_RESPONSE_COMPLETE_FINAL",
            )
        )


def _takes_credit(outcome: Outcome | None) -> bool:
    return isinstance(outcome, Response)


def _detached(outcome: Outcome | None) -> Outcome | None:
    """The outcome in memory that the model cannot write to."""
    if not isinstance(outcome, Response):
        return outcome
    return outcome._replace(outputs=[Output(o.name, o.datatype, o.shape, bytes(o.data)) for o in outcome.outputs])


def _runs_an_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
