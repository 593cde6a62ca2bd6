"""Where traces go: Triton's JSON files, or an OpenTelemetry collector (OTLP over HTTP, in its JSON encoding).

Runs in the repository process, in a thread of its own: a collector that does not answer delays nothing.
"""

import json
import queue
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from configs.trace import TraceConfig

BATCH = 512
"""Traces sent to a collector at once."""
QUEUE = 2048
"""Traces kept for a collector that is slow; more are dropped and counted."""
_INTERNAL, _SERVER = 1, 2  # kinds of span
DELAY_SECONDS = 1.0
TIMEOUT_SECONDS = 10.0


def triton_events(record: dict[str, Any]) -> list[dict[str, Any]]:
    """A record as the objects of Triton's trace file."""
    header = {"id": record["id"], "model_name": record["model_name"], "model_version": record["model_version"]}
    if record["request_id"]:
        header["request_id"] = record["request_id"]
    return [header] + [
        {"id": record["id"], "timestamps": [{"name": name, "ns": ns}]} for name, ns in record["timestamps"]
    ]


def otlp_spans(record: dict[str, Any]) -> list[dict[str, Any]]:
    """A record as spans: the request, the model's part of it, the computation."""
    offset = record["epoch_offset_ns"]
    events = [{"name": name, "timeUnixNano": str(ns + offset)} for name, ns in record["timestamps"]]
    root, model, compute = record["spans"]
    attributes = {
        "triton.model_name": record["model_name"],
        "triton.model_version": str(record["model_version"]),
        "triton.trace_id": str(record["id"]),
        "triton.trace_parent_id": "0",
    }
    if record["request_id"]:
        attributes["triton.request_id"] = record["request_id"]
    computing = [event for event in events if event["name"].startswith("COMPUTE")]
    receiving = [event for event in events if event["name"].startswith(("HTTP", "GRPC"))]
    serving = [event for event in events if event not in computing and event not in receiving]
    outer = [*receiving, serving[-1]]
    spans = [
        _span((root, record["parent_span"]), "InferRequest", _SERVER, outer, receiving, {}),
        _span((model, root), record["model_name"], _INTERNAL, serving, serving, attributes),
    ]
    if computing:
        spans.append(_span((compute, model), "compute", _INTERNAL, computing, computing, {}))
    for span in spans:
        span["traceId"] = record["trace"]
    return spans


def _span(
    ids: tuple[str, str],
    name: str,
    kind: int,
    covered: list[dict[str, str]],
    events: list[dict[str, str]],
    attributes: dict[str, str],
) -> dict[str, Any]:
    """A span over the time of the events `covered`; `ids` are its own and its parent's (or `""`)."""
    span, parent = ids
    return {
        "spanId": span,
        **({"parentSpanId": parent} if parent else {}),
        "name": name,
        "kind": kind,
        "startTimeUnixNano": covered[0]["timeUnixNano"],
        "endTimeUnixNano": covered[-1]["timeUnixNano"],
        "events": events,
        "attributes": [{"key": key, "value": {"stringValue": value}} for key, value in attributes.items()],
    }


def otlp_body(records: list[dict[str, Any]], config: TraceConfig) -> bytes:
    """The body of one export request."""
    resource = {"service.name": "triton-inference-server", **config.resource}
    attributes = [{"key": key, "value": {"stringValue": value}} for key, value in resource.items()]
    spans = [span for record in records for span in otlp_spans(record)]
    scope = {"scope": {"name": "triton-server"}, "spans": spans}
    return json.dumps({"resourceSpans": [{"resource": {"attributes": attributes}, "scopeSpans": [scope]}]}).encode()


class TraceFiles:
    """Writes traces to `FILE` at the end, or to `FILE.0`, `FILE.1` ... whenever `log_frequency` of them are there."""

    def __init__(self, path: str) -> None:
        """Nothing is written before the first trace."""
        self._path = path
        self._records: list[dict[str, Any]] = []
        self._files = 0

    def add(self, record: dict[str, Any], log_frequency: int) -> None:
        """Keep a trace, and write a file when enough are there."""
        self._records.append(record)
        if log_frequency and len(self._records) >= log_frequency:
            self._write(f"{self._path}.{self._files}")
            self._files += 1

    def close(self) -> None:
        """Write what is left."""
        if self._records:
            self._write(f"{self._path}.{self._files}" if self._files else self._path)

    def _write(self, path: str) -> None:
        records, self._records = self._records, []
        events = [event for record in records for event in triton_events(record)]
        try:
            Path(path).write_text(json.dumps(events))
        except OSError as error:
            sys.stderr.write(f"cannot write the trace file '{path}': {error}\n")


class Exporter:
    """Takes records from the main thread; a thread writes or sends them."""

    def __init__(self, config: TraceConfig) -> None:
        """Starts the thread."""
        self._config = config
        self._queue: queue.Queue[dict[str, Any] | None] = queue.Queue(QUEUE)
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
        self._queue.put(None)
        self._thread.join(TIMEOUT_SECONDS)
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
        """What has come within DELAY_SECONDS; False when that was the last."""
        records: list[dict[str, Any]] = []
        while len(records) < BATCH:
            try:
                record = self._queue.get(timeout=DELAY_SECONDS)
            except queue.Empty:
                break
            if record is None:
                return records, False
            records.append(record)
        return records, True

    def _send(self, records: list[dict[str, Any]]) -> None:
        request = urllib.request.Request(  # the operator's own collector
            self._config.url, otlp_body(records, self._config), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS):
                return
        except (OSError, urllib.error.URLError) as error:
            sys.stderr.write(f"{len(records)} traces could not be sent to {self._config.url}: {error}\n")
