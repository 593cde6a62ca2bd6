"""The HTTP frontend's extensions as a process, with the real tritonclient and a fake broker."""

import base64
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as tritonclient

from broker.messages import Infer, LoadModel, UnloadModel, UpdateLogSettings, UpdateTraceSettings
from tests.support.fake_broker import FakeBroker, Frontend
from tests.support.http import LENGTH, ask

SHM = Path("/dev/shm")
MEMORY = "/v2/systemsharedmemory"


@pytest.fixture(scope="module")
def broker() -> Iterator[FakeBroker]:
    with FakeBroker(http_header_forward_pattern="^x-") as fake:
        yield fake


@pytest.fixture(scope="module")
def frontend(broker: FakeBroker) -> Frontend:
    return broker.frontend("http")


@pytest.fixture
def client(frontend: Frontend) -> Iterator[tritonclient.InferenceServerClient]:
    with tritonclient.InferenceServerClient(frontend.address) as connected:
        yield connected


@pytest.fixture
def key() -> Iterator[str]:
    """An object of 64 bytes, the first of which are the numbers from 1 to 4."""
    name = f"test-{secrets.token_hex(8)}"
    (SHM / name).write_bytes(np.arange(1, 5, dtype=np.float32).tobytes().ljust(64, b"\0"))
    yield f"/{name}"
    (SHM / name).unlink()


def last(broker: FakeBroker, kind: type[Any]) -> Any:
    """The last message of a kind that has reached the broker."""
    return [message for message in broker.seen if type(message) is kind][-1]


# ----------------------------------------------------------------------------------------------- routes


METHODS = {
    "/v2": "GET",
    "/v2/health/live": "GET",
    "/v2/health/ready": "GET",
    "/v2/logging": "GET POST",
    "/v2/trace/setting": "GET POST",
    "/v2/models/stats": "GET",
    "/v2/models/echo": "GET",
    "/v2/models/echo/versions/1": "GET",
    "/v2/models/echo/ready": "GET",
    "/v2/models/echo/config": "GET",
    "/v2/models/echo/versions/1/stats": "GET",
    "/v2/models/echo/trace/setting": "GET POST",
    "/v2/models/echo/versions/1/infer": "POST",
    "/v2/models/echo/generate": "POST",
    "/v2/models/echo/generate_stream": "POST",
    "/v2/systemsharedmemory/status": "GET",
    "/v2/systemsharedmemory/region/r/register": "POST",
    "/v2/systemsharedmemory/region/r/unregister": "POST",
    "/v2/cudasharedmemory/status": "GET",
    "/v2/cudasharedmemory/register": "POST",
    "/v2/cudasharedmemory/unregister": "POST",
    "/v2/repository/index": "POST",
    "/v2/repository/models/echo/load": "POST",
    "/v2/repository/models/echo/unload": "POST",
}


@pytest.mark.parametrize("path", METHODS)
def test_every_route_has_its_methods_and_no_others(frontend: Frontend, path: str) -> None:
    for method in ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS"):
        answer = ask(frontend.address, method, path)
        if method in METHODS[path].split():
            assert answer.status not in (404, 405)
        else:
            assert (answer.status, answer.reason) == (405, "Not Allowed")


# ----------------------------------------------------------------------------------------------- repository


def test_the_repository(client: tritonclient.InferenceServerClient, broker: FakeBroker) -> None:
    assert client.get_model_repository_index() == [{"name": "echo", "version": "1", "state": "READY"}]
    client.load_model("echo", config='{"backend": "x"}', files={"file:1/model.py": b"\0\xff"})
    assert last(broker, LoadModel)[1:] == ("echo", '{"backend": "x"}', {"1/model.py": b"\0\xff"}, "")
    client.load_model("echo")
    assert last(broker, LoadModel)[1:] == ("echo", "", {}, "")
    client.unload_model("echo", unload_dependents=True)
    assert last(broker, UnloadModel)[1:] == ("echo", True)
    with pytest.raises(tritonclient.InferenceServerException, match="failed to load 'nope', failed to poll"):
        client.load_model("nope")


@pytest.mark.parametrize(
    ("path", "body", "status", "error"),
    [
        ("index", "hello", 500, "failed to parse the request JSON buffer: Invalid value. at 0"),
        ("index", {"ready": 1}, 400, "Invalid value for 'ready': expected a boolean"),
        ("models/echo/load", "hello", 500, "failed to parse the request JSON buffer: Invalid value. at 0"),
        ("models/echo/load", {"parameters": []}, 500, "attempt to get members for non-object"),
        ("models/echo/load", {"parameters": {"zz": "x"}}, 500, "unexpected error on creating Triton parameter"),
        ("models/echo/load", {"parameters": {"config": {}}}, 500, "attempt to access JSON non-string as string"),
        (
            "models/echo/load",
            {"parameters": {"file:a": "!"}},
            400,
            "the value of load parameter 'file:a' is not base64",
        ),
        ("r/models/echo/load", {}, 501, "'repository_name' specification is not supported"),
        ("r/models/echo/unload", {}, 501, "'repository_name' specification is not supported"),
        (
            "models/echo/unload",
            {"parameters": {"unload_dependents": 1}},
            500,
            "Unable to parse 'unload_dependents': attempt to access JSON non-boolean as boolean",
        ),
    ],
)
def test_errors_of_the_repository(frontend: Frontend, path: str, body: Any, status: int, error: str) -> None:
    answer = ask(frontend.address, "POST", f"/v2/repository/{path}", body)
    assert (answer.status, answer.error) == (status, error)


def test_bodies_that_are_missing_or_mean_nothing(frontend: Frontend) -> None:
    for path in ("index", "r/index", "models/echo/load", "models/echo/unload"):
        for body in (None, "[]", "{}", '{"other":1}'):
            assert ask(frontend.address, "POST", f"/v2/repository/{path}", body).status == 200
    answer = ask(frontend.address, "POST", "/v2/repository/models/echo/load")
    assert (answer.headers["Content-Type"], answer.body) == ("application/json", b"")


# ----------------------------------------------------------------------------------------------- settings


def test_trace_settings(client: tritonclient.InferenceServerClient, broker: FakeBroker) -> None:
    assert client.get_trace_settings() == {"trace_level": ["OFF"], "trace_rate": "1000"}
    assert last(broker, UpdateTraceSettings)[1:] == ("", {})
    changed = client.update_trace_settings(
        "echo", {"trace_level": ["TIMESTAMPS", "X"], "trace_rate": "5", "other": "1"}
    )
    assert changed == {"trace_level": ["TIMESTAMPS", "X"], "trace_rate": "5"}
    client.update_trace_settings(settings={"trace_count": None})
    assert last(broker, UpdateTraceSettings)[1:] == ("", {"trace_count": None})


def test_log_settings(client: tritonclient.InferenceServerClient, broker: FakeBroker) -> None:
    assert client.get_log_settings() == {"log_info": True}
    changed = client.update_log_settings({"log_info": False, "log_error": None, "log_verbose_level": 2, "other": 1})
    assert changed == {"log_info": False, "log_verbose_level": 2}
    assert last(broker, UpdateLogSettings)[1] == {"log_info": False, "log_verbose_level": 2}


@pytest.mark.parametrize(
    ("path", "body", "status", "error"),
    [
        ("trace/setting", "", 500, "failed to parse the request JSON buffer: The document is empty. at 0"),
        ("trace/setting", {"trace_rate": 5}, 500, "attempt to access JSON non-string as string"),
        ("trace/setting", {"trace_level": "OFF"}, 500, "attempt to access JSON non-array as array"),
        ("trace/setting", {"trace_level": [1]}, 500, "attempt to access JSON non-string as string"),
        ("logging", "", 500, "failed to parse the request JSON buffer: The document is empty. at 0"),
        ("logging", {"log_info": 1}, 500, "attempt to access JSON non-boolean as boolean"),
        (
            "logging",
            {"log_verbose_level": -1},
            500,
            "attempt to access JSON non-unsigned-integer as unsigned-integer",
        ),
        ("logging", {"log_format": "xml"}, 503, "invalid argument for --log_format, got: xml"),
    ],
)
def test_errors_of_settings(frontend: Frontend, path: str, body: Any, status: int, error: str) -> None:
    answer = ask(frontend.address, "POST", f"/v2/{path}", body)
    assert (answer.status, answer.error) == (status, error)


# ----------------------------------------------------------------------------------------------- shared memory


def test_registered_memory(client: tritonclient.InferenceServerClient, key: str) -> None:
    assert client.get_system_shared_memory_status() == []
    client.register_system_shared_memory("r", key, 64)
    entry = {"name": "r", "key": key, "offset": 0, "byte_size": 64}
    assert client.get_system_shared_memory_status("r") == client.get_system_shared_memory_status() == [entry]
    assert client.get_cuda_shared_memory_status() == []
    with pytest.raises(tritonclient.InferenceServerException, match="shared memory region 'r' already in manager"):
        client.register_system_shared_memory("r", "/not-there", 64)
    with pytest.raises(tritonclient.InferenceServerException, match="registered as system shared memory, not CUDA"):
        client.get_cuda_shared_memory_status("r")
    client.unregister_cuda_shared_memory("r")
    assert len(client.get_system_shared_memory_status()) == 1
    client.unregister_system_shared_memory("r")
    client.unregister_system_shared_memory("r")
    assert client.get_system_shared_memory_status() == []


def test_tensors_in_registered_memory(client: tritonclient.InferenceServerClient, key: str) -> None:
    client.register_system_shared_memory("r", key, 64)
    given = tritonclient.InferInput("X", [4], "FP32")
    given.set_shared_memory("r", 16)
    inline = client.infer("echo", [given]).as_numpy("X")
    np.testing.assert_array_equal(inline, [1, 2, 3, 4])
    wanted = tritonclient.InferRequestedOutput("X")
    wanted.set_shared_memory("r", 32, 32)
    result = client.infer("echo", [given], outputs=[wanted])
    assert result.get_output("X") == {"name": "X", "datatype": "FP32", "shape": [4]}
    data = (SHM / key[1:]).read_bytes()
    assert data[32:48] == data[:16]
    client.unregister_system_shared_memory()
    with pytest.raises(tritonclient.InferenceServerException, match="Unable to find shared memory region: 'r'"):
        client.infer("echo", [given])


@pytest.mark.parametrize(
    ("kind", "body", "status", "error"),
    [
        ("system", "", 500, "failed to parse the request JSON buffer: The document is empty. at 0"),
        ("system", {"byte_size": 4}, 400, "Shared memory register request has no 'key' field"),
        ("system", {"key": "/k"}, 400, "Shared memory register request has no 'byte_size' field"),
        ("system", {"key": 1, "byte_size": 4}, 500, "attempt to access JSON non-string as string"),
        (
            "system",
            {"key": "/k", "byte_size": "4"},
            500,
            "attempt to access JSON non-unsigned-integer as unsigned-integer",
        ),
        ("system", {"key": "/not-there", "byte_size": 4}, 500, "Unable to open shared memory region: '/not-there'"),
        (
            "system",
            {"key": "/../a", "byte_size": 4},
            400,
            "cannot register shared memory region 'e' - invalid shm key '/../a'",
        ),
        ("cuda", {}, 400, "Shared memory register request has no 'raw_handle' field"),
        ("cuda", {"raw_handle": {}}, 500, "attempt to access non-existing object member 'b64'"),
        (
            "cuda",
            {"raw_handle": {"b64": ""}, "byte_size": 4},
            500,
            "attempt to access non-existing object member 'device_id'",
        ),
        (
            "cuda",
            {"raw_handle": {"b64": "AAAA"}, "byte_size": 4, "device_id": 0},
            400,
            "'raw_handle' must be a valid base64 encoded cudaIpcMemHandle_t",
        ),
    ],
)
def test_what_cannot_be_registered(frontend: Frontend, kind: str, body: Any, status: int, error: str) -> None:
    answer = ask(frontend.address, "POST", f"/v2/{kind}sharedmemory/region/e/register", body)
    assert (answer.status, answer.error) == (status, error)


def test_a_region_needs_a_name(frontend: Frontend) -> None:
    for kind in ("system", "cuda"):
        answer = ask(frontend.address, "POST", f"/v2/{kind}sharedmemory/register", {})
        text = f"'region name' is necessary to register {kind} shared memory region"
        assert (answer.status, answer.error) == (400, text)


@pytest.mark.skipif(any(Path("/dev").glob("nvidia[0-9]*")), reason="there is a GPU")
def test_cuda_memory_without_a_gpu(client: tritonclient.InferenceServerClient) -> None:
    with pytest.raises(tritonclient.InferenceServerException, match="'c', GPUs not supported"):
        client.register_cuda_shared_memory("c", base64.b64encode(bytes(64)), 0, 4)


# ----------------------------------------------------------------------------------------------- inference


def test_classification(client: tritonclient.InferenceServerClient, frontend: Frontend) -> None:
    given = tritonclient.InferInput("X", [3], "FP32")
    given.set_data_from_numpy(np.array([1, 3, 2], np.float32))
    for is_binary in (True, False):
        wanted = tritonclient.InferRequestedOutput("X", binary_data=is_binary, class_count=2)
        found = client.infer("echo", [given], outputs=[wanted]).as_numpy("X")
        assert [value.decode() if is_binary else value for value in found] == ["3.000000:1:dog", "2.000000:2"]
    half = {"name": "X", "datatype": "FP16", "shape": [1], "parameters": {"binary_data_size": 2}}
    document = json.dumps({"inputs": [half], "outputs": [{"name": "X", "parameters": {"classification": 1}}]})
    path = "/v2/models/echo/infer"
    answer = ask(frontend.address, "POST", path, f"{document}ab".encode(), **{LENGTH: str(len(document))})
    assert answer.error == "class result not available for output due to unsupported type 'FP16'"


def test_forwarded_headers(frontend: Frontend, broker: FakeBroker) -> None:
    body = {
        "inputs": [{"name": "X", "datatype": "FP32", "shape": [1], "data": [1]}],
        "parameters": {"own": 1, "X-One": 2},
    }
    answer = ask(frontend.address, "POST", "/v2/models/echo/infer", body, X_One="1", Other="o", traceparent="00-a-b-01")
    assert answer.json["parameters"] == {"own": 1, "X-One": "1"}
    sent = last(broker, Infer)
    assert (sent.traceparent, sent.tracestate, sent.endpoint) == ("00-a-b-01", "", "HTTP end point")
    assert "X-One" not in ask(frontend.address, "POST", "/v2/models/echo/generate", {"X": 1}, X_One="1").json


def test_a_decoupled_model_is_refused_before_its_body_is_looked_at(frontend: Frontend) -> None:
    answer = ask(frontend.address, "POST", "/v2/models/stream/infer", "hello")
    text = "HTTP end point doesn't support models with decoupled transaction policy"
    assert (answer.status, answer.error) == (501, text)


# ----------------------------------------------------------------------------------------------- options


def test_restricted_apis(broker: FakeBroker) -> None:
    groups = ("model-config,inference:Admin=secret", "health:k=v")
    address = broker.frontend("http", http_restricted_api=groups).address
    text = "This API is restricted, expecting header 'Admin'"
    for method, path in (
        ("GET", "/v2/models/echo/config"),
        ("PUT", "/v2/models/echo/config"),
        ("POST", "/v2/models/nope/generate"),
    ):
        refused = ask(address, method, path, Admin="other")
        assert (refused.status, refused.error) == (403, text)
    assert ask(address, "GET", "/v2/models/echo/config", admin="secret").status == 200
    assert ask(address, "GET", "/v2/models/echo").status == 200
    assert ask(address, "GET", "/v2/health/live").status == 403
    assert ask(address, "GET", "/v2/nothing").status == 404


def test_client_memory_can_be_disabled(broker: FakeBroker) -> None:
    address = broker.frontend("http", allow_client_shm=False).address
    for path in ("region/r/register", "region/r/unregister", "unregister"):
        answer = ask(address, "POST", f"{MEMORY}/{path}", {"key": "/k", "byte_size": os.getpid()})
        assert (answer.status, answer.error.split(".")[0]) == (501, "Client shared memory is disabled")
    assert ask(address, "GET", f"{MEMORY}/status").body == b"[]"
