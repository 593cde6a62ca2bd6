"""The endpoints for SageMaker and Vertex AI as processes, with a fake broker."""

import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.fake_broker import FakeBroker
from tests.support.http import LENGTH, ask, framed

SAGEMAKER = "application/vnd.sagemaker-triton.binary+json"
VERTEX = "application/vnd.vertex-ai-triton.binary+json"
JSON = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1], "data": [1]}]}
ROUTES = {"AIP_HEALTH_ROUTE": "/health/of/7", "AIP_PREDICT_ROUTE": "/predict"}


@pytest.fixture(scope="module")
def broker() -> Iterator[FakeBroker]:
    with FakeBroker(http_header_forward_pattern=".*", vertex_ai_default_model="") as fake:
        fake.metrics = [{"name": "nv_x", "type": "counter", "help": "h", "samples": [({}, 1.0, "")]}]
        yield fake


def sagemaker(broker: FakeBroker, **env: str) -> str:
    names = {f"SAGEMAKER_TRITON_{name}": value for name, value in env.items()}
    return broker.frontend("http.sagemaker", env=names).address


@pytest.fixture(scope="module")
def vertex(broker: FakeBroker) -> str:
    return broker.frontend("http.vertex_ai", env=ROUTES).address


def binary(address: str, path: str, mime: str, size: int) -> None:
    """An inference with binary tensors there and back."""
    data = os.urandom(size)
    body, length = framed([size // 4], data)
    answer = ask(address, "POST", path, body, Content_Type=f"{mime};json-header-size={length}")
    assert answer.status == 200
    got, _, header_size = answer.headers["Content-Type"].partition(";json-header-size=")
    assert (got, answer.body[int(header_size) :]) == (mime, data)
    assert LENGTH not in answer.headers


# ----------------------------------------------------------------------------------------------- SageMaker


def test_sagemaker(broker: FakeBroker) -> None:
    address = sagemaker(broker)
    assert ask(address, "GET", "/ping")[::3] == (200, b"")
    answer = ask(address, "POST", "/invocations", JSON, Other="not forwarded")
    assert answer.json["outputs"] == [{"name": "X", "datatype": "FP32", "shape": [1], "data": [1.0]}]
    assert "parameters" not in answer.json
    for size in (4, 400_000):
        binary(address, "/invocations", SAGEMAKER, size)
    refused = ask(address, "POST", "/invocations", "{}", Content_Type=f"{SAGEMAKER};json-header-size=x")
    assert (refused.status, refused.error) == (400, "Unable to parse inference header size, got: x")
    for method, path in (
        ("POST", "/ping"),
        ("GET", "/invocations"),
        ("GET", "/v2"),
        ("PUT", "/models"),
        ("GET", "/models/"),
    ):
        assert ask(address, method, path)[::3] == (400, b"")


def test_sagemaker_models_and_kinds_of_inference(broker: FakeBroker) -> None:
    address = sagemaker(broker, DEFAULT_MODEL_NAME="stream", INFERENCE_TYPE="generate_stream", PING_MODE="live")
    assert ask(address, "GET", "/ping").status == 200
    assert ask(address, "POST", "/invocations", {"count": 3}).body.count(b"data: ") == 3
    address = sagemaker(broker, INFERENCE_TYPE="generate")
    assert ask(address, "POST", "/invocations", {"X": 5}).json["X"] == 5.0
    address = sagemaker(broker, DEFAULT_MODEL_NAME="nope", INFERENCE_TYPE="unknown")
    answer = ask(address, "POST", "/invocations", JSON)
    assert (answer.status, answer.error) == (404, "Request for unknown model: 'nope' is not found")


# ----------------------------------------------------------------------------------------------- Vertex AI


def test_vertex_ai(vertex: str) -> None:
    assert ask(vertex, "GET", ROUTES["AIP_HEALTH_ROUTE"])[::3] == (200, b"")
    assert ask(vertex, "POST", "/predict", JSON).json["model_name"] == "echo"
    binary(vertex, "/predict", VERTEX, 4000)
    for method, path in (("POST", ROUTES["AIP_HEALTH_ROUTE"]), ("GET", "/predict"), ("GET", "/v2"), ("POST", "/x")):
        assert ask(vertex, method, path)[::3] == (400, b"")


def test_vertex_ai_redirects(vertex: str) -> None:
    def redirected(path: str, body: Any = None) -> Any:
        return ask(vertex, "POST", "/predict", body, X_Vertex_Ai_Triton_Redirect=path)

    assert redirected("v2/models/echo/versions/1/infer", JSON).json["model_name"] == "echo"
    assert redirected("v2/models/echo/generate", {"X": 1}).json["X"] == 1.0
    assert redirected("v2/models/echo").json["platform"] == "fake"
    assert redirected("v2/repository/index").json[0]["name"] == "echo"
    assert redirected("v2/health/live").status == 200
    assert redirected("metrics").body == b"# HELP nv_x h\n# TYPE nv_x counter\nnv_x 1\n"
    assert redirected("v2/nothing").status == 404
    for path in (
        "v2/repository/models/echo/load",
        "v2/repository/models/echo/unload",
        "v2/systemsharedmemory/region/r/register",
        "v2/cudasharedmemory/unregister",
    ):
        assert redirected(path, {}).status == 403


def test_vertex_ai_default_model(broker: FakeBroker) -> None:
    address = broker.frontend("http.vertex_ai", env=ROUTES, vertex_ai_default_model="broken").address
    answer = ask(address, "POST", "/predict", JSON)
    assert (answer.status, answer.error) == (500, "it broke")
