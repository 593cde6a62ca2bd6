"""Traces of a running server: Triton's files, settings that change, and spans that reach a collector."""

import json
import queue
import threading
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient import grpc
from tritonclient.utils import InferenceServerException

from tests.support.clients import PROTOCOLS, Client
from tests.support.http import ask
from tests.support.repository import FAIL, Commands, instances, tensor, write_identity, write_model
from tests.support.server import Server
from tests.support.waiting import until

ONE = np.array([1.0], np.float32)
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"
COMPUTE = ["COMPUTE_START", "COMPUTE_INPUT_END", "COMPUTE_OUTPUT_START", "COMPUTE_END"]


def read(path: Path) -> dict[int, dict[str, Any]]:
    """The traces of a file by number: their header, and `times` by name."""
    found: dict[int, dict[str, Any]] = {}
    for event in json.loads(path.read_text()):
        if "timestamps" in event:
            for stamp in event["timestamps"]:
                found[event["id"]]["times"][stamp["name"]] = stamp["ns"]
        else:
            found[event["id"]] = {**event, "times": {}}
    return found


def test_a_trace_file_has_tritons_form(new_server: Callable[..., Server], tmp_path: Path) -> None:
    file = tmp_path / "trace.json"
    flags = ["level=TIMESTAMPS", "rate=2", f"triton,file={file}"]
    server = new_server("", *[f"--trace-config={flag}" for flag in flags])
    write_identity(server.repository, "identity")
    server.start()
    for protocol in PROTOCOLS:
        with Client(protocol, server) as client:
            for number in range(4):
                client.infer("identity", {"IN": ONE}, request_id=f"{protocol}{number}")
    assert server.stop() == 0
    traces = read(file)
    assert [trace["request_id"] for trace in traces.values()] == ["http1", "http3", "grpc1", "grpc3"]
    for trace in traces.values():
        receive = "HTTP_RECV" if trace["request_id"].startswith("http") else "GRPC_WAITREAD"
        send = f"{receive[:4]}_SEND"
        names = [f"{receive}_START", f"{receive}_END", "REQUEST_START", "QUEUE_START", *COMPUTE]
        names += ["INFER_RESPONSE_COMPLETE", "REQUEST_END", f"{send}_START", f"{send}_END"]
        assert list(trace["times"]) == names
        times = list(trace["times"].values())
        assert times == sorted(times)
        assert (trace["model_name"], trace["model_version"]) == ("identity", 1)


def sent(path: Path) -> dict[str, bool]:
    """Whether the traces of a file say when their responses were sent, by request."""
    return {trace["request_id"]: any("_SEND_END" in name for name in trace["times"]) for trace in read(path).values()}


def test_every_way_to_answer_says_when_it_has(new_server: Callable[..., Server], tmp_path: Path) -> None:
    file = tmp_path / "trace.json"
    flags = ["level=TIMESTAMPS", "rate=1", f"triton,file={file}"]
    server = new_server("", *[f"--trace-config={flag}" for flag in flags])
    write_identity(server.repository, "identity")
    Commands(server.repository)
    server.start()
    asked = []

    def infer(name: str, model: str, data: list[int], datatype: str, **headers: str) -> int:
        asked.append(name)
        tensor = {"name": "IN", "datatype": datatype, "shape": [len(data)], "data": data}
        body = {"id": name, "inputs": [tensor]}
        return ask(server.address("http"), "POST", f"/v2/models/{model}/infer", body, **headers).status

    def generate(kind: str, model: str, data: list[int]) -> int:
        asked.append(f"{model} {kind}")
        body = {"id": asked[-1], "IN": data}
        return ask(server.address("http"), "POST", f"/v2/models/{model}/{kind}", body).status

    assert infer("small", "identity", [1], "FP32") == 200
    assert infer("large", "identity", [1] * 100_000, "FP32") == 200
    assert infer("headers", "identity", [1], "FP32", Other="x") == 200
    assert infer("error", "commands", [FAIL, 1], "INT64") == 500
    assert infer("headers error", "commands", [FAIL, 1], "INT64", Other="x") == 500
    for kind in ("generate", "generate_stream"):
        assert generate(kind, "identity", [1]) == 200
        assert generate(kind, "commands", [FAIL, 1]) == 500
    with Client("grpc", server) as client:
        with pytest.raises(InferenceServerException):
            client.infer("commands", {"IN": np.array([FAIL, 1])}, request_id="grpc error")
        stream: queue.Queue[Any] = queue.Queue()
        client.raw.start_stream(lambda result, error: stream.put((result, error)))
        tensor = grpc.InferInput("IN", [1], "FP32").set_data_from_numpy(ONE)
        client.raw.async_stream_infer("identity", [tensor], request_id="stream")
        assert stream.get(timeout=20)[1] is None
        client.raw.stop_stream()
    assert server.stop() == 0
    assert sent(file) == dict.fromkeys((*asked, "grpc error", "stream"), True)


def test_tensors_of_both_protocols_are_told(new_server: Callable[..., Server], tmp_path: Path) -> None:
    file = tmp_path / "trace.json"
    server = new_server("", *[f"--trace-config={flag}" for flag in ("level=TENSORS", "rate=1", f"triton,file={file}")])
    write_identity(server.repository, "identity")
    server.start()
    for protocol in PROTOCOLS:
        with Client(protocol, server) as client:
            client.infer("identity", {"IN": np.array([0.1, 2, 1e10], np.float32)})
    assert server.stop() == 0
    tensor = {"data": "0.1,2,1e+10", "shape": "3", "dtype": "FP32"}
    assert json.loads(file.read_text()) == [
        {"id": number, "activity": activity, "tensor": {"name": name, **tensor}}
        for number in (1, 2)
        for activity, name in (("TENSOR_QUEUE_INPUT", "IN"), ("TENSOR_BACKEND_OUTPUT", "OUT"))
    ]


def test_settings_change_while_the_server_runs(new_server: Callable[..., Server], tmp_path: Path) -> None:
    file = tmp_path / "trace.json"
    server = new_server("", f"--trace-config=triton,file={file}", "--trace-config=rate=1")
    for name in ("a", "b"):
        write_identity(server.repository, name)
    server.start()
    with Client("http", server) as http, Client("grpc", server) as other:
        http.infer("a", {"IN": ONE})  # not traced
        settings = http.raw.update_trace_settings(
            "a", {"trace_level": ["TIMESTAMPS"], "trace_count": "2", "log_frequency": "1"}
        )
        assert settings == {
            "trace_level": ["TIMESTAMPS"],
            "trace_rate": "1",
            "trace_count": "2",
            "log_frequency": "1",
            "trace_file": str(file),
            "trace_mode": "triton",
        }
        assert http.raw.get_trace_settings("b")["trace_level"] == ["OFF"]
        for _ in range(4):
            http.infer("a", {"IN": ONE})
            other.infer("b", {"IN": ONE})
        until(lambda: Path(f"{file}.1").exists(), 10, "a file for each trace")
        assert [trace["model_name"] for n in (0, 1) for trace in read(Path(f"{file}.{n}")).values()] == ["a", "a"]
        other.raw.update_trace_settings("", {"trace_level": ["TIMESTAMPS"]})
        other.raw.update_trace_settings("a", {"trace_level": ["OFF"]})
        other.infer("a", {"IN": ONE})
        other.infer("b", {"IN": ONE}, request_id="last")
        other.raw.update_trace_settings("a", {"trace_level": None})
        assert http.raw.get_trace_settings("a")["trace_level"] == ["TIMESTAMPS"]
        with pytest.raises(InferenceServerException, match="trace file location can not be updated through network"):
            http.raw.update_trace_settings(settings={"trace_file": "/tmp/x"})
        with pytest.raises(
            InferenceServerException, match=r"Unable to parse 'trace_count'\. Expecting value >= -1, got: -2"
        ):
            other.raw.update_trace_settings(settings={"trace_count": "-2"})
    assert server.stop() == 0
    assert not Path(f"{file}.3").exists()
    assert [trace["request_id"] for trace in read(Path(f"{file}.2")).values()] == ["last"]


CONTEXT = """
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        texts = [request.trace().get_context() or "" for request in requests]
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor("OUT", np.array([text.encode()], np.object_))])
            for text in texts
        ]
"""

CALLER = """
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            call = pb_utils.InferenceRequest(
                model_name="context", requested_output_names=["OUT"], inputs=request.inputs(), trace=request.trace()
            )
            response = call.exec()
            responses.append(pb_utils.InferenceResponse(response.output_tensors()))
        return responses
"""


class Collector:
    """A collector of OTLP in JSON."""

    def __init__(self) -> None:
        spans: list[dict[str, Any]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                for whole in body["resourceSpans"]:
                    spans.extend(span for scope in whole["scopeSpans"] for span in scope["spans"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing."""

        self.spans = spans
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def test_spans_join_the_clients_trace_and_models_see_it(new_server: Callable[..., Server]) -> None:
    collector = Collector()
    url = f"opentelemetry,url=http://127.0.0.1:{collector.server.server_port}/v1/traces"
    flags = ["level=TIMESTAMPS", "rate=1000", "mode=opentelemetry", url, "opentelemetry,bsp_schedule_delay=50"]
    server = new_server("", *[f"--trace-config={flag}" for flag in flags])
    io = f"input [ {tensor('IN')} ]\noutput [ {tensor('OUT', 'TYPE_STRING', '[ 1 ]')} ]\n{instances(1)}"
    for name, source in (("context", CONTEXT), ("caller", CALLER)):
        directory = write_model(server.repository, name, f'backend: "python"\n{io}')
        (directory / "1" / "model.py").write_text(source)
    server.start()
    try:
        seen = {}
        for protocol in PROTOCOLS:
            with Client(protocol, server) as client:
                assert _text(client, "context") == "", "one in a thousand is traced"
                headers = {"traceparent": PARENT, "tracestate": "vendor=1"}
                seen[protocol] = json.loads(_text(client, "context", headers=headers, request_id=protocol))
                seen["caller"] = json.loads(_text(client, "caller", headers=headers, request_id="caller"))
        until(lambda: len(_named(collector, "InferRequest")) == 4, 20, "four traces have been sent")
    finally:
        server.stop()
        collector.server.shutdown()
        collector.server.server_close()
    assert {span["traceId"] for span in collector.spans} == {TRACE}
    assert {span["parentSpanId"] for span in _named(collector, "InferRequest")} == {SPAN}
    for protocol in PROTOCOLS:
        (model,) = [span for span in _named(collector, "context") if _attribute(span, "triton.request_id") == protocol]
        context = {"traceparent": f"00-{TRACE}-{model['spanId']}-01", "tracestate": "vendor=1"}
        assert seen[protocol] == context
        assert {span["name"] for span in collector.spans if span.get("parentSpanId") == model["spanId"]} == {
            "queue",
            "compute",
        }
    callers = {span["spanId"] for span in _named(collector, "caller")}
    assert len([span for span in _named(collector, "context") if span["parentSpanId"] in callers]) == 2
    counts = Counter(span["name"] for span in collector.spans)
    assert {name: counts[name] for name in ("queue", "compute", "input", "infer", "output")} == dict.fromkeys(
        ("queue", "compute", "input", "infer", "output"), 6
    )
    for span in collector.spans:
        assert int(span["startTimeUnixNano"]) <= int(span["endTimeUnixNano"])


def _text(client: Client, model: str, **options: Any) -> str:
    answer = client.infer(model, {"IN": ONE}, **options)["OUT"]
    assert answer is not None
    text: str = answer[0].decode()
    return text


def _named(collector: Collector, name: str) -> list[dict[str, Any]]:
    return [span for span in list(collector.spans) if span["name"] == name]


def _attribute(span: dict[str, Any], key: str) -> str:
    values = {each["key"]: each["value"]["stringValue"] for each in span["attributes"]}
    return values.get(key, "")
