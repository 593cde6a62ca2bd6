"""Two repositories with a model of the same name, as namespaces."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.support.clients import Client
from tests.support.http import ask
from tests.support.repository import tensor, write_echo, write_identity, write_model
from tests.support.server import Server

ONE = {"inputs": [{"name": "IN", "datatype": "FP32", "shape": [1], "data": [1]}]}
STEP = 'model_name: "same" model_version: -1 input_map { key: "IN" value: "IN" } output_map { key: "OUT" value: "OUT" }'
PIPE = (
    f'platform: "ensemble" input [ {tensor("IN")} ] output [ {tensor("OUT")} ] '
    f"ensemble_scheduling {{ step [ {{ {STEP} }} ] }}"
)


def test_a_name_in_two_repositories(new_server: Callable[..., Server], tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    server = new_server("")
    repositories = [f"--model-repository={path}" for path in (server.repository, other)]
    server.flags += [*repositories, "--model-namespacing=true"]
    write_identity(server.repository, "same")
    write_identity(server.repository, "alone")
    write_echo(other, "same")
    write_model(other, "pipe", PIPE)
    with server:
        address = server.address("http")
        ambiguous = (
            "There are 2 identifiers of model 'same' in global map, model namespace must be provided to resolve "
            "ambiguity."
        )
        for method, path in (("GET", ""), ("GET", "/config"), ("POST", "/infer"), ("POST", "/generate")):
            refused = ask(address, method, f"/v2/models/same{path}", ONE if method == "POST" else None)
            assert (refused.status, refused.error) == (400, ambiguous)
        assert ask(address, "GET", "/v2/models/same/ready").status == 400
        assert ask(address, "GET", "/v2/models/same/stats").error == "requested model 'same' is not available"
        assert ask(address, "POST", "/v2/models/alone/infer", ONE).status == 200
        index = ask(address, "POST", "/v2/repository/index").json
        assert sorted(row["name"] for row in index) == ["alone", "pipe", "same", "same"]
        assert ask(address, "POST", "/v2/models/pipe/infer", ONE).status == 200
        assert server.metric("nv_inference_count", model="same", namespace=str(other)) == 1
        assert server.metric("nv_inference_count", model="same", namespace=str(server.repository)) == 0
        with Client("grpc", server) as client:
            for repository in (server.repository, other):
                answer = client.infer(f"{repository}::same", {"IN": np.ones(1, np.float32)})["OUT"]
                assert answer is not None
                assert answer.tolist() == [1.0]
        for repository, count in ((server.repository, 1), (other, 2)):
            assert server.metric("nv_inference_count", model="same", namespace=str(repository)) == count
        assert server.metric("nv_inference_count", model="alone", namespace=str(server.repository)) == 1
