"""Watches the requests: traces go to the repository process, lines to the access log. Pure."""

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from broker.effects import Effect, Emit, Send
from broker.log_settings import access_line
from broker.messages import QUEUE_INPUT, TENSORS, Delivered, ErrorCode, Infer, Response, TensorsTraced, Traced
from broker.request import Request
from broker.tracing import Tracing, finish, is_delivery_traced, protocol_of

DELIVERY_SECONDS = 5.0
"""How long a trace waits for the word that its response has left."""


class _Undelivered(NamedTuple):
    record: dict[str, Any]
    since: float


class RequestObserver:
    """See `requests.Observer`."""

    def __init__(self, tracing: Tracing, logs_access: bool, epoch_offset: float, out: list[Effect]) -> None:
        """`out` collects the effects."""
        self.epoch_offset = epoch_offset
        self.repository: str | None = None  # the peer that exports traces
        self._tracing = tracing
        self.logs_access = logs_access
        self._out = out
        self._undelivered: dict[tuple[str, int], _Undelivered] = {}  # traces that wait for Delivered, by request

    def begin(self, model: str, traceparent: str) -> dict[str, Any] | None:
        """See `requests.Observer`."""
        return self._tracing.begin(model, traceparent)

    def begin_step(self, parent: Request) -> dict[str, Any] | None:
        """See `requests.Observer`."""
        return None if parent.trace is None else self._tracing.begin_step(parent.trace)

    def context(self, record: dict[str, Any], tracestate: str) -> str:
        """See `requests.Observer`."""
        if "tensors" in record:
            return TENSORS
        context = self._tracing.context(record, tracestate)
        return json.dumps(context) if context else ""

    def answered(self, request: Request, response: Response) -> None:
        """See `requests.Observer`."""
        if request.trace is not None:
            error = response.error if response.code != ErrorCode.OK else ""
            record = finish(request.trace, request, error, self.epoch_offset)
            record["log_frequency"] = self._tracing.log_frequency(request.version.model)
            if is_delivery_traced(request):
                self._undelivered[request.peer, response.request] = _Undelivered(record, request.ended)
            else:
                self._export(record)
        if self.logs_access and request.step is None:
            version = request.version.number
            line = access_line(request.message, version, request.batch, response.code, request.ended)
            self._out.append(Emit("I", line))

    def tensors(self, request: Request, message: TensorsTraced) -> None:
        """A worker tells the tensors of a request that is traced; a second attempt starts anew."""
        if request.trace is None or "tensors" not in request.trace:
            return
        told: list[tuple[str, ...]] = request.trace["tensors"]
        if message.activity == QUEUE_INPUT:
            told.clear()
        told += [(message.activity, *tensor) for tensor in message.tensors]

    def delivered(self, peer: str, message: Delivered) -> None:
        """A frontend has sent a response to its client."""
        waiting = self._undelivered.pop((peer, message.request), None)
        if waiting is not None:
            protocol = protocol_of(peer)
            stamps = ((f"{protocol}_SEND_START", message.began), (f"{protocol}_SEND_END", message.ended))
            waiting.record["timestamps"] += stamps
            self._export(waiting.record)

    def tick(self, now: float) -> None:
        """Export traces whose responses nobody will say to have delivered."""
        if self._undelivered:
            self._give_up(key for key, waiting in self._undelivered.items() if now - waiting.since >= DELIVERY_SECONDS)

    def frontend_lost(self, peer: str) -> None:
        """A frontend is dead."""
        self._give_up(key for key in self._undelivered if key[0] == peer)

    def flush(self) -> None:
        """Export all that is there: the server ends."""
        self._give_up(self._undelivered)

    def _give_up(self, keys: Iterable[tuple[str, int]]) -> None:
        for key in list(keys):
            self._export(self._undelivered.pop(key).record)

    def _export(self, record: dict[str, Any]) -> None:
        if self.repository is not None:
            self._out.append(Send(self.repository, Traced(record)))

    def refused(self, infer: Infer, response: Response, now: float) -> None:
        """See `requests.Observer`."""
        if self.logs_access:
            self._out.append(Emit("I", access_line(infer, infer.version, 0, response.code, now)))
