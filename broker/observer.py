"""Watches the requests: traces go to the repository process, lines to the access log. Pure."""

import json
from typing import Any

from broker.effects import Effect, Emit, Send
from broker.log_settings import access_line
from broker.messages import ErrorCode, Infer, Response, Traced
from broker.request import Request
from broker.tracing import Tracing, finish


class RequestObserver:
    """See `requests.Observer`."""

    def __init__(self, tracing: Tracing, logs_access: bool, epoch_offset: float, out: list[Effect]) -> None:
        """`out` collects the effects."""
        self.epoch_offset = epoch_offset
        self.repository: str | None = None  # the peer that exports traces
        self._tracing = tracing
        self.logs_access = logs_access
        self._out = out

    def begin(self, model: str, traceparent: str) -> dict[str, Any] | None:
        """See `requests.Observer`."""
        return self._tracing.begin(model, traceparent)

    def begin_step(self, parent: Request) -> dict[str, Any] | None:
        """See `requests.Observer`."""
        return None if parent.trace is None else self._tracing.begin_step(parent.trace)

    def context(self, record: dict[str, Any], tracestate: str) -> str:
        """See `requests.Observer`."""
        context = self._tracing.context(record, tracestate)
        return json.dumps(context) if context else ""

    def answered(self, request: Request, response: Response) -> None:
        """See `requests.Observer`."""
        if request.trace is not None and self.repository is not None:
            error = response.error if response.code != ErrorCode.OK else ""
            record = finish(request.trace, request, error, self.epoch_offset)
            record["log_frequency"] = self._tracing.log_frequency(request.version.model)
            self._out.append(Send(self.repository, Traced(record)))
        if self.logs_access and request.step is None:
            version = request.version.number
            line = access_line(request.message, version, request.batch, response.code, request.ended)
            self._out.append(Emit("I", line))

    def refused(self, infer: Infer, response: Response, now: float) -> None:
        """See `requests.Observer`."""
        if self.logs_access:
            self._out.append(Emit("I", access_line(infer, infer.version, 0, response.code, now)))
