"""SageMaker's and Vertex AI's endpoints of a real server."""

from collections.abc import Callable

from tests.support.http import ask
from tests.support.repository import write_echo, write_identity
from tests.support.server import START_SECONDS, Server
from tests.support.waiting import until

ROUTES = {"AIP_HEALTH_ROUTE": "/health", "AIP_PREDICT_ROUTE": "/predict"}
ONE = {"inputs": [{"name": "IN", "datatype": "FP32", "shape": [2], "data": [1, 2]}]}


def test_both_platforms_beside_triton(new_server: Callable[..., Server]) -> None:
    flags = ("--allow-sagemaker=true", "--sagemaker-port=0", "--allow-vertex-ai=true", "--vertex-ai-port=0")
    server = new_server("", *flags, "--vertex-ai-default-model=echo", env=ROUTES)
    write_echo(server.repository, "echo")
    write_identity(server.repository, "identity")
    with server:
        vertex, sagemaker = server.address("vertex_ai"), server.address("sagemaker")
        assert ask(vertex, "GET", "/health").status == ask(sagemaker, "GET", "/ping").status == 200
        assert ask(vertex, "POST", "/predict", ONE).json["outputs"][0]["data"] == [1.0, 2.0]
        large = {"inputs": [{"name": "IN", "datatype": "FP32", "shape": [5000], "data": [1] * 5000}]}
        assert ask(vertex, "POST", "/predict", large).json["outputs"][0]["shape"] == [5000]
        refused = ask(sagemaker, "POST", "/invocations", ONE)
        assert (refused.status, refused.error) == (
            400,
            "the server has 2 models: name the one for such requests with SAGEMAKER_TRITON_DEFAULT_MODEL_NAME",
        )


def test_a_container_of_vertex_ai_serves_nothing_else(new_server: Callable[..., Server]) -> None:
    server = new_server("", "--vertex-ai-port=0", env={**ROUTES, "AIP_MODE": "PREDICTION", "AIP_HTTP_PORT": "1"})
    write_echo(server.repository, "echo")
    server.start(wait="")
    until(server.ports, START_SECONDS, "the ports are known")
    assert server.ports().keys() == {"metrics", "vertex_ai"}
    until(lambda: ask(server.address("vertex_ai"), "GET", "/health").status == 200, START_SECONDS, "it is ready")
    assert ask(server.address("vertex_ai"), "POST", "/predict", ONE).json["model_name"] == "echo"
