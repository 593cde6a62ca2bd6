"""Where traces go: Triton's JSON files, or an OpenTelemetry collector (OTLP over HTTP, in its JSON encoding).

Runs in the repository process, in a thread of its own: a collector that does not answer delays nothing.
"""

import contextlib
import json
import queue
import sys
import threading
import time
import urllib.request
from collections.abc import Mapping, Sequence
from http.client import HTTPException
from itertools import pairwise
from pathlib import Path
from typing import Any

from configs.trace import TraceConfig

TIMEOUT_SECONDS = 10.0
"""How long a collector may take over one batch, and how long the end of the server waits for the last one."""
_INTERNAL, _SERVER = 1, 2  # kinds of span
_FAILED = 2  # a span's status


def triton_events(record: dict[str, Any]) -> list[dict[str, Any]]:
    """A record as the objects of Triton's trace file: time stamps after a header, and tensors."""
    number = record["id"]
    tensors = [
        {"id": number, "activity": activity, "tensor": {"name": name, "data": data, "shape": shape, "dtype": dtype}}
        for activity, name, data, shape, dtype in record.get("tensors", ())
    ]
    if "TIMESTAMPS" not in record["levels"]:
        return tensors
    header = {"id": number, "model_name": record["model_name"], "model_version": record["model_version"]}
    if record["request_id"]:
        header["request_id"] = record["request_id"]
    if "parent_id" in record:
        header["parent_id"] = record["parent_id"]
    stamps = [{"id": number, "timestamps": [{"name": name, "ns": ns}]} for name, ns in record["timestamps"]]
    return [header, *stamps, *tensors]


def otlp_spans(record: dict[str, Any]) -> list[dict[str, Any]]:
    """A record as spans: the request, the model's part of it, and within that the queue and the computation."""
    offset = record["epoch_offset_ns"]
    events = [{"name": name, "timeUnixNano": str(ns + offset)} for name, ns in record["timestamps"]]
    at = {event["name"]: event["timeUnixNano"] for event in events}
    receiving = [event for event in events if event["name"].startswith(("HTTP", "GRPC"))]
    computing = [event for event in events if event["name"].startswith("COMPUTE")]
    serving = [event for event in events if event not in receiving and event not in computing]
    attributes = {
        "triton.model_name": record["model_name"],
        "triton.model_version": str(record["model_version"]),
        "triton.trace_id": str(record["id"]),
        "triton.trace_parent_id": str(record.get("parent_id", 0)),
    }
    if record["request_id"]:
        attributes["triton.request_id"] = record["request_id"]
    parent = record["parent_span"]
    end = at["REQUEST_END"]
    status = {"status": {"code": _FAILED, "message": record["error"]}} if record["error"] else {}
    spans = []
    if receiving:
        times = receiving[0]["timeUnixNano"], max(end, receiving[-1]["timeUnixNano"])
        spans.append(_span(record, "request", parent, times, receiving, name="InferRequest", kind=_SERVER, **status))
        parent = record["spans"]["request"]
    model = {"name": record["model_name"], "attributes": _attributes(attributes), **status}
    spans.append(_span(record, "model", parent, (at["REQUEST_START"], end), serving, **model))
    parent = record["spans"]["model"]
    spans.append(_span(record, "queue", parent, (at["QUEUE_START"], at.get("COMPUTE_START", end))))
    if computing:
        stages = [event["timeUnixNano"] for event in computing]
        spans.append(_span(record, "compute", parent, (stages[0], stages[-1]), computing))
        parent = record["spans"]["compute"]
        names = ("input", "infer", "output")
        spans += [_span(record, name, parent, times) for name, times in zip(names, pairwise(stages), strict=True)]
    return spans


def _span(
    record: dict[str, Any],
    which: str,
    parent: str,
    times: tuple[str, str],
    events: Sequence[dict[str, str]] = (),
    **more: Any,
) -> dict[str, Any]:
    """One of `tracing.SPANS`, under the span `parent` (`""`: none); `more` are other fields."""
    start, end = times
    return {
        "traceId": record["trace"],
        "spanId": record["spans"][which],
        **({"parentSpanId": parent} if parent else {}),
        "name": which,
        "kind": _INTERNAL,
        "startTimeUnixNano": start,
        "endTimeUnixNano": end,
        "events": list(events),
        **more,
    }


def _attributes(values: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"key": key, "value": {"stringValue": value}} for key, value in values.items()]


def otlp_body(records: list[dict[str, Any]], config: TraceConfig) -> bytes:
    """The body of one export request."""
    resource = {"service.name": "triton-inference-server", **config.resource}
    spans = [span for record in records for span in otlp_spans(record)]
    scope = {"scope": {"name": "triton-server"}, "spans": spans}
    return json.dumps(
        {"resourceSpans": [{"resource": {"attributes": _attributes(resource)}, "scopeSpans": [scope]}]}
    ).encode()


class TraceFiles:
    """Writes traces to `FILE`, or to `FILE.0`, `FILE.1` ... whenever `log_frequency` of them are there."""

    def __init__(self, path: str) -> None:
        """Nothing is written before the first trace."""
        self._path = path
        self._records: list[dict[str, Any]] = []
        self._traces = 0  # records of requests that are no steps
        self._files = 0

    def add(self, record: dict[str, Any], log_frequency: int) -> None:
        """Keep a trace; write a file when enough are there, or when this is the last one that trace_count allows."""
        self._records.append(record)
        if "parent_id" in record:
            return  # the steps of an ensemble are part of its trace, and come before it
        self._traces += 1
        if log_frequency and self._traces >= log_frequency:
            self._write_next()
        elif record["is_last"] and not log_frequency and not self._files:
            self._write(self._path)  # more may come, when the settings change: then the file is written anew

    def close(self) -> None:
        """Write what is left."""
        if self._records and self._files:
            self._write_next()
        elif self._records:
            self._write(self._path)

    def _write_next(self) -> None:
        self._write(f"{self._path}.{self._files}")
        self._files += 1
        self._records = []
        self._traces = 0

    def _write(self, path: str) -> None:
        events = [event for record in self._records for event in triton_events(record)]
        try:
            Path(path).write_text(json.dumps(events))
        except OSError as error:
            sys.stderr.write(f"cannot write the trace file '{path}': {error}\n")


class Exporter:
    """Takes records from the main thread; a thread writes or sends them."""

    def __init__(self, config: TraceConfig) -> None:
        """Starts the thread."""
        self._config = config
        self._delay = config.delay_ms / 1000 if config.mode == "opentelemetry" else 0.0
        self._queue: queue.Queue[dict[str, Any] | None] = queue.Queue(config.max_queue)
        self._dropped = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def add(self, record: dict[str, Any]) -> None:
        """Export a record soon; never blocks."""
        try:
            self._queue.put_nowait(record)
        except queue.Full:
            self._dropped += 1

    def close(self) -> None:
        """Export what is there, for a bounded time."""
        end = time.monotonic() + TIMEOUT_SECONDS
        with contextlib.suppress(queue.Full):
            self._queue.put(None, timeout=TIMEOUT_SECONDS)
            self._thread.join(end - time.monotonic())
        if self._dropped:
            sys.stderr.write(f"{self._dropped} traces were dropped: they could not be exported fast enough\n")

    def _run(self) -> None:
        files = TraceFiles(self._config.file)
        is_open = True
        while is_open:
            records, is_open = self._take()
            if self._config.mode == "triton":
                for record in records:
                    files.add(record, record["log_frequency"])
            elif records:
                self._send(records)
        files.close()

    def _take(self) -> tuple[list[dict[str, Any]], bool]:
        """The first record, and what comes until its batch is due or full; False when that was the last."""
        records: list[dict[str, Any]] = []
        timeout: float | None = None
        due = 0.0
        while len(records) < self._config.max_batch:
            try:
                record = self._queue.get(timeout=timeout)
            except queue.Empty:
                break
            if record is None:
                return records, False
            records.append(record)
            due = due or time.monotonic() + self._delay
            timeout = max(0.0, due - time.monotonic())
        return records, True

    def _send(self, records: list[dict[str, Any]]) -> None:
        request = urllib.request.Request(  # the operator's own collector
            self._config.url, otlp_body(records, self._config), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS):
                return
        except (OSError, HTTPException, ValueError) as error:
            sys.stderr.write(f"{len(records)} traces could not be sent to {self._config.url}: {error}\n")
