"""Trace files in Triton's form, and spans that reach a real collector."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from broker.trace_export import Exporter, TraceFiles, otlp_spans, triton_events
from broker.tracing import SPANS
from configs.trace import TraceConfig

STAMPS = (
    ("HTTP_RECV_START", 1),
    ("HTTP_RECV_END", 2),
    ("REQUEST_START", 2),
    ("QUEUE_START", 2),
    ("COMPUTE_START", 5),
    ("COMPUTE_INPUT_END", 6),
    ("COMPUTE_OUTPUT_START", 8),
    ("COMPUTE_END", 9),
    ("INFER_RESPONSE_COMPLETE", 10),
    ("REQUEST_END", 10),
)
SECONDS = 10.0


def record(number: int = 1, **changes: Any) -> dict[str, Any]:
    return {
        "id": number,
        "is_last": False,
        "levels": ["TIMESTAMPS"],
        "trace": "a" * 32,
        "parent_span": "",
        "spans": {name: f"{index:016x}" for index, name in enumerate(SPANS, 1)},
        "model_name": "m",
        "model_version": 3,
        "request_id": "mine",
        "timestamps": STAMPS,
        "epoch_offset_ns": 1000,
        "error": "",
        "log_frequency": 0,
        **changes,
    }


# ----------------------------------------------------------------------------------------------- files


def test_a_trace_file_has_one_object_for_the_request_and_one_for_each_time_stamp() -> None:
    header, *stamps = triton_events(record())
    assert header == {"id": 1, "model_name": "m", "model_version": 3, "request_id": "mine"}
    assert stamps[0] == {"id": 1, "timestamps": [{"name": "HTTP_RECV_START", "ns": 1}]}
    assert len(stamps) == len(STAMPS)
    assert "request_id" not in triton_events(record(request_id=""))[0]


def test_tensors_follow_the_time_stamps_or_stand_alone() -> None:
    tensors = [("TENSOR_QUEUE_INPUT", "IN", "1,2.5", "2", "FP32")]
    both = triton_events(record(levels=["TIMESTAMPS", "TENSORS"], tensors=tensors))
    assert len(both) == 1 + len(STAMPS) + 1
    alone = triton_events(record(levels=["TENSORS"], tensors=tensors))
    tensor = {"name": "IN", "data": "1,2.5", "shape": "2", "dtype": "FP32"}
    assert alone == both[-1:] == [{"id": 1, "activity": "TENSOR_QUEUE_INPUT", "tensor": tensor}]


def test_a_span_of_a_request_lasts_until_its_response_has_left() -> None:
    request = otlp_spans(record(timestamps=(*STAMPS, ("HTTP_SEND_START", 12), ("HTTP_SEND_END", 15))))[0]
    assert (request["name"], request["endTimeUnixNano"]) == ("InferRequest", "1015")
    assert [event["name"] for event in request["events"]][-2:] == ["HTTP_SEND_START", "HTTP_SEND_END"]


def ids(path: Path) -> list[int]:
    """The traces in a file."""
    return [event["id"] for event in json.loads(path.read_text()) if "model_name" in event]


def test_without_a_frequency_there_is_one_file_at_the_end(tmp_path: Path) -> None:
    files = TraceFiles(str(tmp_path / "t"))
    for number in (1, 2, 3):
        files.add(record(number), 0)
    assert not list(tmp_path.iterdir())
    files.close()
    assert ids(tmp_path / "t") == [1, 2, 3]


def test_the_file_is_there_when_the_last_trace_that_is_allowed_is(tmp_path: Path) -> None:
    files = TraceFiles(str(tmp_path / "t"))
    files.add(record(1), 0)
    files.add(record(2, is_last=True), 0)
    assert ids(tmp_path / "t") == [1, 2]
    files.add(record(3), 0)
    files.close()
    assert ids(tmp_path / "t") == [1, 2, 3]


def test_with_a_frequency_there_are_numbered_files(tmp_path: Path) -> None:
    files = TraceFiles(str(tmp_path / "t"))
    for number in range(1, 6):
        files.add(record(number), 2)
    files.close()
    assert {path.name: ids(path) for path in sorted(tmp_path.iterdir())} == {
        "t.0": [1, 2],
        "t.1": [3, 4],
        "t.2": [5],
    }


def test_steps_are_written_with_their_ensemble_and_name_it(tmp_path: Path) -> None:
    path = tmp_path / "t"
    files = TraceFiles(str(path))
    for each in (record(2, parent_id=1), record(3, parent_id=1), record(1), record(5, parent_id=4), record(4)):
        files.add(each, 1)
    assert ids(tmp_path / "t.0") == [2, 3, 1]
    assert ids(tmp_path / "t.1") == [5, 4]
    assert triton_events(record(2, parent_id=1))[0]["parent_id"] == 1
    assert "parent_id" not in triton_events(record(1))[0]


def test_no_trace_makes_no_file(tmp_path: Path) -> None:
    TraceFiles(str(tmp_path / "t")).close()
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    files = TraceFiles(str(tmp_path / "nowhere" / "t"))
    files.add(record(), 1)
    assert "cannot write the trace file" in capfd.readouterr().err


def test_traces_of_a_running_server_are_written_without_delay(tmp_path: Path) -> None:
    exporter = Exporter(TraceConfig(file=str(tmp_path / "t")))
    exporter.add(record(1, log_frequency=1))
    exporter.add(record(2, log_frequency=0))
    exporter.close()
    assert ids(tmp_path / "t.0") == [1]
    assert ids(tmp_path / "t.1") == [2]


# ----------------------------------------------------------------------------------------------- spans


def span(spans: list[dict[str, Any]], name: str) -> dict[str, Any]:
    (found,) = [span for span in spans if span["name"] == name]
    return found


def test_a_request_is_a_tree_of_spans() -> None:
    spans = otlp_spans(record(parent_span="f" * 16))
    names = {span["spanId"]: span["name"] for span in spans}
    parents = {span["name"]: names.get(span.get("parentSpanId"), span.get("parentSpanId")) for span in spans}
    assert parents == {
        "InferRequest": "f" * 16,
        "m": "InferRequest",
        "queue": "m",
        "compute": "m",
        "input": "compute",
        "infer": "compute",
        "output": "compute",
    }
    times = {s["name"]: (int(s["startTimeUnixNano"]), int(s["endTimeUnixNano"])) for s in spans}
    assert times == {
        "InferRequest": (1001, 1010),
        "m": (1002, 1010),
        "queue": (1002, 1005),
        "compute": (1005, 1009),
        "input": (1005, 1006),
        "infer": (1006, 1008),
        "output": (1008, 1009),
    }
    assert {span["traceId"] for span in spans} == {"a" * 32}
    assert [span(spans, "InferRequest")["kind"], span(spans, "m")["kind"]] == [2, 1]


def test_events_and_attributes_are_where_triton_has_them() -> None:
    spans = otlp_spans(record())

    def events(name: str) -> list[str]:
        return [event["name"] for event in span(spans, name)["events"]]

    assert events("InferRequest") == ["HTTP_RECV_START", "HTTP_RECV_END"]
    assert events("m") == ["REQUEST_START", "QUEUE_START", "INFER_RESPONSE_COMPLETE", "REQUEST_END"]
    assert events("compute") == ["COMPUTE_START", "COMPUTE_INPUT_END", "COMPUTE_OUTPUT_START", "COMPUTE_END"]
    attributes = {a["key"]: a["value"]["stringValue"] for a in span(spans, "m")["attributes"]}
    assert attributes == {
        "triton.model_name": "m",
        "triton.model_version": "3",
        "triton.trace_id": "1",
        "triton.trace_parent_id": "0",
        "triton.request_id": "mine",
    }
    assert "parentSpanId" not in span(spans, "InferRequest")
    assert "status" not in span(spans, "m")


def test_a_request_that_was_not_executed_was_only_queued_and_says_why() -> None:
    spans = otlp_spans(record(timestamps=(*STAMPS[:4], *STAMPS[8:]), error="Request timeout expired"))
    assert [span["name"] for span in spans] == ["InferRequest", "m", "queue"]
    assert span(spans, "queue")["endTimeUnixNano"] == "1010"
    assert span(spans, "m")["status"] == {"code": 2, "message": "Request timeout expired"}


def test_a_call_of_another_model_has_no_span_of_a_frontend() -> None:
    spans = otlp_spans(record(timestamps=STAMPS[2:], parent_span="f" * 16))
    assert spans[0]["name"] == "m"
    assert spans[0]["parentSpanId"] == "f" * 16


# ----------------------------------------------------------------------------------------------- collector


class Collector:
    """A collector of OTLP over HTTP on a port of its own."""

    def __init__(self) -> None:
        bodies: list[dict[str, Any]] = []
        arrived = threading.Semaphore(0)
        self.status = 200
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.headers["Content-Type"] == "application/json"
                bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                arrived.release()
                self.send_response(owner.status)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing."""

        self.bodies = bodies
        self.arrived = arrived
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1/traces"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def collector() -> Iterator[Collector]:
    one = Collector()
    yield one
    one.server.shutdown()
    one.server.server_close()


def config(collector: Collector, **changes: Any) -> TraceConfig:
    fields = {"mode": "opentelemetry", "url": collector.url, "delay_ms": 0, **changes}
    return TraceConfig(levels=("TIMESTAMPS",), **fields)


def test_spans_reach_a_collector(collector: Collector) -> None:
    exporter = Exporter(config(collector, resource={"zone": "a"}))
    exporter.add(record())
    assert collector.arrived.acquire(timeout=SECONDS), "it is not kept until the end"
    exporter.close()
    ((whole,),) = [body["resourceSpans"] for body in collector.bodies]
    attributes = {a["key"]: a["value"]["stringValue"] for a in whole["resource"]["attributes"]}
    assert attributes == {"service.name": "triton-inference-server", "zone": "a"}
    (scope,) = whole["scopeSpans"]
    assert scope["scope"] == {"name": "triton-server"}
    assert len(scope["spans"]) == len(SPANS)


def test_traces_leave_in_batches_and_the_rest_at_the_end(collector: Collector) -> None:
    exporter = Exporter(config(collector, max_batch=2, delay_ms=60_000))
    for number in range(5):
        exporter.add(record(number))
    exporter.close()
    sent = [len(body["resourceSpans"][0]["scopeSpans"][0]["spans"]) // len(SPANS) for body in collector.bodies]
    assert sent == [2, 2, 1]


def test_a_batch_does_not_wait_for_the_traffic_to_pause(collector: Collector) -> None:
    exporter = Exporter(config(collector, delay_ms=200))
    number = 0
    while not collector.arrived.acquire(timeout=0.02):  # and another one soon after
        number += 1
        assert number < 400, "nothing is sent as long as more traces come"
        exporter.add(record(number))
    exporter.close()


def test_a_collector_that_refuses_or_is_not_there_is_said_and_is_tried_again(
    collector: Collector, capfd: pytest.CaptureFixture[str]
) -> None:
    collector.status = 503
    exporter = Exporter(config(collector))
    exporter.add(record(1))
    assert collector.arrived.acquire(timeout=SECONDS)
    collector.status = 200
    exporter.add(record(2))
    exporter.close()
    assert len(collector.bodies) == 2
    assert f"1 traces could not be sent to {collector.url}: HTTP Error 503" in capfd.readouterr().err
    lost = Exporter(config(collector, url="http://127.0.0.1:1/v1/traces"))
    lost.add(record())
    lost.close()
    assert "could not be sent to http://127.0.0.1:1/v1/traces" in capfd.readouterr().err


def test_what_does_not_fit_is_dropped_and_counted(collector: Collector, capfd: pytest.CaptureFixture[str]) -> None:
    exporter = Exporter(config(collector, max_queue=1, max_batch=1))
    for number in range(2000):
        exporter.add(record(number))  # never waits
    exporter.close()
    dropped = 2000 - len(collector.bodies)
    assert dropped > 0
    assert f"{dropped} traces were dropped: they could not be exported fast enough" in capfd.readouterr().err
