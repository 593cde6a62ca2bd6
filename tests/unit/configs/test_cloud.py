"""Settings of the endpoints for SageMaker and Vertex AI."""

from pathlib import Path

import pytest

from configs import cloud
from configs.errors import ConfigError
from configs.server import ServerConfig, load

ROUTES = {"AIP_HEALTH_ROUTE": "/health", "AIP_PREDICT_ROUTE": "/predict"}


def problems(environ: dict[str, str], **settings: object) -> list[str]:
    return list(cloud.problems(ServerConfig(**settings), environ))  # type: ignore[arg-type]  # any setting


def test_what_vertex_ai_says_in_the_environment() -> None:
    assert cloud.from_environment({}) == cloud.from_environment({"AIP_MODE": "TRAINING"}) == {}
    assert cloud.from_environment({"AIP_MODE": "PREDICTION", "AIP_HTTP_PORT": "7080"}) == {
        "allow_vertex_ai": True,
        "allow_http": False,
        "allow_grpc": False,
        "vertex_ai_port": 7080,
    }
    for port in ("x", "-1", "65536", "²"):
        with pytest.raises(ValueError, match=f"^AIP_HTTP_PORT is '{port}', which is no port$"):
            cloud.from_environment({"AIP_HTTP_PORT": port})


def test_what_sagemaker_says_in_the_environment() -> None:
    ports = {"SAGEMAKER_BIND_TO_PORT": "8090", "SAGEMAKER_SAFE_PORT_RANGE": "21000-21999"}
    assert cloud.from_environment(ports) == {"sagemaker_port": 8090, "sagemaker_safe_port_range": "21000-21999"}
    with pytest.raises(ValueError, match=r"^SAGEMAKER_BIND_TO_PORT is 'x', which is no port$"):
        cloud.from_environment({"SAGEMAKER_BIND_TO_PORT": "x"})


def test_flags_win_over_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**ROUTES, "AIP_MODE": "PREDICTION", "AIP_HTTP_PORT": "7080"}.items():
        monkeypatch.setenv(name, value)
    config = load([f"--model-repository={tmp_path}", "--allow-http=true", "--vertex-ai-port=7081"])
    assert (config.allow_vertex_ai, config.allow_http, config.allow_grpc) == (True, True, False)
    assert config.vertex_ai_port == 7081
    with pytest.raises(ConfigError, match="cannot listen to HTTP requests and Vertex AI requests at the same address"):
        load([f"--model-repository={tmp_path}", "--allow-http=true", "--http-port=7080"])


def test_vertex_ai_needs_its_routes() -> None:
    assert problems({}) == problems(ROUTES, allow_vertex_ai=True) == []
    assert problems({"AIP_HEALTH_ROUTE": "/h"}, allow_vertex_ai=True) == [
        "AIP_PREDICT_ROUTE is not defined for Vertex AI endpoint"
    ]


def test_ports_that_sagemaker_allows() -> None:
    assert problems({}, sagemaker_safe_port_range="8000-8002") == []
    assert problems({}, sagemaker_safe_port_range="8001-9000") == [
        "The server cannot listen to HTTP requests at port 8000, allowed port range is [8001, 9000]"
    ]
    assert problems({}, sagemaker_safe_port_range="8001-9000", allow_http=False) == []
    assert problems({}, sagemaker_safe_port_range="8000") == ["sagemaker_safe_port_range: '8000': write FIRST-LAST"]
