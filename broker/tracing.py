"""Which requests are traced, and what a trace holds. Pure: settings, sampling, records.

Settings follow Triton's trace extension: a model's own, else the server's, else those of the start. A record is plain
data; the repository process writes it to the trace file or sends it to an OpenTelemetry collector.
"""

import random
import re
from typing import Any

from broker.messages import ErrorCode, UpdateTraceSettings
from broker.request import Request
from broker.validation import Rejected
from configs.trace import TraceConfig, chosen

_COUNTED = {"trace_rate": 0, "trace_count": -1, "log_frequency": 0}
"""Settings that are integers, and the least that they may be."""
_KNOWN = ("trace_level", *_COUNTED)

SPANS = ("request", "model", "queue", "compute", "input", "infer", "output")
"""The spans of a trace, each with an id of its own."""
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")
"""W3C's header: version, trace, span, flags; later versions may add more."""


class Tracing:
    """The trace settings and the sampler."""

    def __init__(self, config: TraceConfig, seed: int) -> None:
        """`seed` makes the ids of OpenTelemetry spans."""
        self._config = config
        self._start = {
            "trace_level": [*config.levels],
            "trace_rate": [str(config.rate)],
            "trace_count": [str(config.count)],
            "log_frequency": [str(config.log_frequency)],
        }
        self._changed: dict[str, dict[str, list[str]]] = {}  # by model, "" is the server
        self._seen: dict[str, int] = {}  # requests, by the model whose settings they follow
        self._left: dict[str, int] = {}  # traces that trace_count still allows, likewise
        self._numbers = 0
        self._random = random.Random(seed)

    # ------------------------------------------------------------------------------------------- settings

    def update(self, question: UpdateTraceSettings, models: dict[str, Any]) -> dict[str, list[str]]:
        """Change settings and say those in force. Raises Rejected, with nothing changed."""
        scope = question.model
        if scope and scope not in models:
            raise Rejected(f"Request for unknown model : {scope}")
        changed = dict(self._changed.get(scope, {}))
        for name, value in question.settings.items():
            if name == "trace_file":
                text = "trace file location can not be updated through network protocol"
                raise Rejected(text, ErrorCode.UNSUPPORTED)
            if name in _KNOWN:
                if value is None or not value:
                    changed.pop(name, None)
                else:
                    changed[name] = _level(value) if name == "trace_level" else _number(name, value)
        self._check({**self._in_force(""), **changed})
        if question.settings:
            self._changed[scope] = changed
        if "trace_count" in question.settings:
            for model in [model for model in self._left if self._follows(model, scope)]:
                del self._left[model]
        return self.settings(scope)

    def settings(self, scope: str) -> dict[str, list[str]]:
        """What is in force for a model (`""`: the server), as the protocols show it."""
        found = self._in_force(scope)
        mode = self._config.mode
        shown = {name: found[name] for name in ("trace_level", "trace_rate", "trace_count")}
        if mode == "triton":
            shown |= {"log_frequency": found["log_frequency"], "trace_file": [self._config.file]}
        else:
            config = self._config
            shown |= {"url": [config.url], "bsp_max_queue_size": [str(config.max_queue)]}
            shown |= {"bsp_schedule_delay": [str(config.delay_ms)]}
            shown |= {"bsp_max_export_batch_size": [str(config.max_batch)]}
            shown |= {"resource": [f"{k}={v}" for k, v in self._config.resource.items()]}
        return {**shown, "trace_mode": [mode]}

    def log_frequency(self, model: str) -> int:
        """After how many traces a file is written; 0: at the end."""
        return int(self._in_force(model)["log_frequency"][0])

    def _in_force(self, scope: str) -> dict[str, list[str]]:
        own = self._changed.get(scope, {}) if scope else {}
        return {**self._start, **self._changed.get("", {}), **own}

    def _follows(self, model: str, scope: str) -> bool:
        """Whether the count of a model (`""`: the server's) is that of `scope`."""
        return model == scope or (not scope and "trace_count" not in self._changed.get(model, {}))

    def _check(self, settings: dict[str, list[str]]) -> None:
        if settings["trace_level"] == ["OFF"]:
            return
        if settings["trace_rate"] == ["0"]:
            raise Rejected("Attempting to set invalid trace setting :sample rate must be non-zero")
        if self._config.mode == "triton" and not self._config.file:
            raise Rejected("Attempting to set invalid trace setting :trace file name is not given")

    # ------------------------------------------------------------------------------------------- sampling

    def begin(self, model: str, traceparent: str) -> dict[str, Any] | None:
        """Whether a request is traced: the beginning of its record, or None."""
        if self._config.levels == ("OFF",) and not self._changed:
            return None
        settings = self._in_force(model)
        if settings["trace_level"] == ["OFF"]:
            return None
        is_otel = self._config.mode == "opentelemetry"
        parent = _TRACEPARENT.fullmatch(traceparent) if is_otel else None
        scope = model if model in self._changed else ""
        if parent is None and not self._sample(scope, settings):
            return None
        self._numbers += 1
        levels = settings["trace_level"]
        record: dict[str, Any] = {"id": self._numbers, "is_last": self._left.get(scope) == 0, "levels": levels}
        if "TENSORS" in levels and not is_otel:
            record["tensors"] = []
        if is_otel:
            record["trace"] = parent[1] if parent else f"{self._random.getrandbits(128):032x}"
            record["parent_span"] = parent[2] if parent else ""
            record["spans"] = self._spans()
        return record

    def begin_step(self, parent: dict[str, Any]) -> dict[str, Any]:
        """The beginning of the record of a step: it is traced when its ensemble is."""
        self._numbers += 1
        record = {"id": self._numbers, "parent_id": parent["id"], "is_last": False, "levels": parent["levels"]}
        if "tensors" in parent:
            record["tensors"] = []
        if "trace" in parent:
            record |= {"trace": parent["trace"], "parent_span": parent["spans"]["model"], "spans": self._spans()}
        return record

    def _spans(self) -> dict[str, str]:
        return {name: f"{self._random.getrandbits(64):016x}" for name in SPANS}

    def context(self, record: dict[str, Any], tracestate: str) -> dict[str, str]:
        """The W3C context that a model sees: the span of its own execution. Empty in mode triton."""
        if "trace" not in record:
            return {}
        context = {"traceparent": f"00-{record['trace']}-{record['spans']['model']}-01"}
        return {**context, "tracestate": tracestate} if tracestate and record["parent_span"] else context

    def _sample(self, scope: str, settings: dict[str, list[str]]) -> bool:
        count = int(settings["trace_count"][0])
        left = self._left.setdefault(scope, count)
        self._seen[scope] = self._seen.get(scope, 0) + 1
        if self._seen[scope] % int(settings["trace_rate"][0]) or left == 0:
            return False
        if left > 0:
            self._left[scope] = left - 1
        return True


def protocol_of(peer: str) -> str:
    """How the time stamps of a frontend begin."""
    return "GRPC" if peer.startswith("g") else "HTTP"


def is_delivery_traced(request: Request) -> bool:
    """Whether a frontend is to say when it has sent the last response of a request."""
    is_gone = request.is_orphan or request.is_cancelled
    is_inner = request.caller is not None or request.step is not None
    return request.trace is not None and not is_inner and not is_gone


def finish(record: dict[str, Any], request: Request, error: str, epoch_offset: float) -> dict[str, Any]:
    """The whole record of an answered request; `error` is `""` for a success.

    Times are nanoseconds of the monotonic clock, which `epoch_offset_ns` turns into those since the epoch.
    """
    message = request.message
    accepted = int(request.enqueued * 1e9)
    end = int(request.ended * 1e9)
    start, input_end, output_start, done = request.times
    stamps = [("REQUEST_START", accepted), ("QUEUE_START", accepted)]
    if request.caller is None and request.step is None:  # else no frontend has received anything
        receive = "GRPC_WAITREAD" if protocol_of(request.peer) == "GRPC" else "HTTP_RECV"
        stamps = [(f"{receive}_START", int(message.received * 1e9)), (f"{receive}_END", accepted), *stamps]
    if start and request.version.graph is None:
        stamps += [
            ("COMPUTE_START", start),
            ("COMPUTE_INPUT_END", input_end),
            ("COMPUTE_OUTPUT_START", output_start),
            ("COMPUTE_END", done),
        ]
    stamps += [("INFER_RESPONSE_COMPLETE", end), ("REQUEST_END", end)]
    return {
        **record,
        "model_name": request.version.model,
        "model_version": request.version.number,
        "request_id": message.request_id,
        "timestamps": stamps,
        "epoch_offset_ns": int(epoch_offset * 1e9),
        "error": error,
    }


def _level(value: list[str]) -> list[str]:
    """Known levels; unknown names are skipped, as Triton does. Raises Rejected."""
    if "OFF" in value and len(value) > 1:
        raise Rejected("Expect only one trace level 'OFF' is specified")
    return [*chosen(value)]


def _number(name: str, value: list[str]) -> list[str]:
    if len(value) > 1:
        raise Rejected(f"expect only 1 value for '{name}'")
    low = _COUNTED[name]
    try:
        number = int(value[0])
    except ValueError:
        raise Rejected(f"Unable to parse '{name}', got: {value[0]}") from None
    if name == "trace_count" and number < low:
        raise Rejected(f"Unable to parse '{name}'. Expecting value >= -1, got:{value[0]}")
    high = 2**31 - 1 if name == "trace_count" else 2**32 - 1
    if not low <= number <= high:
        raise Rejected(f"Unable to parse '{name}', value is out of range [ {low}, {high} ], got: {value[0]}")
    return [str(number)]
