"""SageMaker's multi-model endpoints of a real server: archives are loaded, listed, asked and unloaded."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.http import Answer, ask
from tests.support.repository import write_echo, write_identity, write_model
from tests.support.server import Server

ONE = {"inputs": [{"name": "IN", "datatype": "FP32", "shape": [2], "data": [1, 2]}]}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    flags = ("--allow-sagemaker=true", "--sagemaker-port=0", "--model-control-mode=explicit", "--exit-on-error=false")
    server = Server(tmp_path_factory.mktemp("endpoint"), "", *flags)
    write_echo(server.repository / "aaaa/model", "echo", 'name: "echo"')
    write_identity(server.repository / "bbbb/model", "identity")
    for name, text in (("full", "CUDA out of memory: tried 4 GiB"), ("wrong", "nothing here")):
        directory = write_model(server.repository / name / "model", "m", 'backend: "python"')
        (directory / "1/model.py").write_text(f"raise ValueError({text!r})\n")
    with server:
        yield server


@pytest.fixture
def address(server: Server) -> str:
    return server.address("sagemaker")


def load(server: Server, name: str, **other: Any) -> Answer:
    body = {"model_name": name, "url": str(server.repository / name / "model")} | other
    return ask(server.address("sagemaker"), "POST", "/models", body)


def test_a_model_from_its_archive_to_its_end(server: Server, address: str) -> None:
    assert ask(address, "GET", "/models").json == {"models": []}
    url = str(server.repository / "aaaa/model")
    assert load(server, "aaaa")[::3] == (200, b"")
    assert ask(address, "GET", "/models/aaaa").json == {"modelName": "aaaa", "modelUrl": url}
    answer = ask(address, "POST", "/models/aaaa/invoke", ONE, X_Amzn_SageMaker_Target_Model="echo-7.tar.gz")
    assert answer.json["model_name"] == "aaaa"
    assert answer.json["outputs"][0]["data"] == [1.0, 2.0]
    assert load(server, "aaaa").status == 409
    assert load(server, "cccc", url=url).status == 409
    assert load(server, "bbbb").status == 200
    assert [model["modelName"] for model in ask(address, "GET", "/models").json["models"]] == ["aaaa", "bbbb"]
    for name in ("aaaa", "bbbb"):
        assert ask(address, "DELETE", f"/models/{name}")[::3] == (200, b"")
        for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/invoke")):
            assert ask(address, method, f"/models/{name}{path}", ONE)[::3] == (404, b"")
    assert ask(address, "GET", "/models").json == {"models": []}
    assert load(server, "aaaa").status == 200, "once more"
    assert ask(address, "DELETE", "/models/aaaa").status == 200


def test_what_cannot_be_loaded(server: Server, address: str, tmp_path: Path) -> None:
    full, wrong = load(server, "full"), load(server, "wrong")
    assert (full.status, wrong.status) == (507, 400)
    assert full.error.startswith("load failed for model 'full': version 1 is at UNAVAILABLE state: Internal")
    for other, text in (
        ({"url": str(tmp_path)}, "it lies outside"),
        ({"url": str(server.repository / "none")}, "repository not found"),
        ({"url": ""}, "failed to register '', repository not found"),
        ({"url": 5}, "attempt to access JSON non-string as string"),
        ({"model_name": "../x"}, "must not contain path traversal characters"),
        ({"model_name": ""}, "Model name cannot be empty"),
    ):
        refused = load(server, "aaaa", **other)
        assert refused.status == 400
        assert text in refused.error
    for body in ("[]", "x", ""):
        assert ask(address, "POST", "/models", body).status == 400
    assert ask(address, "GET", "/models").json == {"models": []}
    assert ask(address, "GET", "/ping").status == 200, "the endpoint is well"


def test_what_cannot_be_asked(server: Server, address: str) -> None:
    assert load(server, "bbbb").status == 200
    path = "/models/bbbb/invoke"
    assert ask(address, "POST", path, ONE, Content_Encoding="br").status == 415
    assert ask(address, "POST", path, "x").status == 400
    refused = ask(address, "POST", path, {"inputs": []})
    assert (refused.status, "expected 1 inputs but got 0" in refused.error) == (400, True)
    assert ask(address, "DELETE", "/models/bbbb").status == 200
