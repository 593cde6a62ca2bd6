"""Health, readiness, metadata, configuration, statistics, errors and metrics, through tritonclient's own methods."""

import os
import signal
from collections.abc import Callable

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from tests.support.calls import Calls
from tests.support.clients import INVALID, NOT_FOUND, PROTOCOLS, Array, Client, status_of
from tests.support.repository import ECHO, FAIL, SEGFAULT, Commands, instances, write_echo, write_identity
from tests.support.server import Server
from tests.support.waiting import until

ONE = np.ones(3, np.float32)


def as_json(client: Client) -> dict[str, bool]:
    """The option that makes gRPC's answers like HTTP's."""
    return {"as_json": True} if client.protocol == "grpc" else {}


def test_health(client: Client) -> None:
    assert client.raw.is_server_live()
    assert client.raw.is_server_ready()
    assert client.raw.is_model_ready("identity")
    assert client.raw.is_model_ready("identity", "1")
    assert not client.raw.is_model_ready("identity", "2")
    assert not client.raw.is_model_ready("nobody")


def test_server_metadata(client: Client) -> None:
    found = client.raw.get_server_metadata(**as_json(client))
    assert found["name"] == "triton"
    assert found["version"]
    assert {"model_configuration", "statistics", "binary_tensor_data"} <= set(found["extensions"])


def test_model_metadata(client: Client) -> None:
    found = client.metadata("sizes")
    assert found["name"] == "sizes"
    assert found["versions"] == ["1"]
    inputs = {tensor["name"]: (tensor["datatype"], [int(dim) for dim in tensor["shape"]]) for tensor in found["inputs"]}
    assert inputs == {"A": ("FP32", [-1]), "B": ("FP32", [-1]), "COUNT": ("INT64", [1])}
    assert [tensor["name"] for tensor in found["outputs"]] == ["SUM", "OUT"]


def test_model_config(client: Client) -> None:
    found = client.raw.get_model_config("identity", **as_json(client))
    found = found.get("config", found)
    assert found["name"] == "identity"
    assert found["backend"] == "identity"
    (group,) = found["instance_group"]
    assert (group["count"], group["kind"]) == (2, "KIND_CPU")
    assert found["input"][0]["data_type"] == "TYPE_FP32"


def test_statistics_count_every_request_once(client: Client) -> None:
    before = client.statistics("echo")
    for _ in range(5):
        client.infer("echo", {"IN": ONE})
    after = client.statistics("echo")
    assert after["inference_count"] - before.get("inference_count", 0) == 5
    assert after["execution_count"] - before.get("execution_count", 0) == 5
    for part in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
        old, new = before["inference_stats"][part], after["inference_stats"][part]
        assert new["count"] - old.get("count", 0) == 5
        assert new["ns"] > old.get("ns", 0)


WRONG: dict[str, tuple[str, dict[str, Array], str]] = {
    "unknown model": ("nobody", {"IN": ONE}, "Request for unknown model: 'nobody' is not found"),
    "unknown input": ("echo", {"WHAT": ONE}, "unexpected inference input 'WHAT' for model 'echo'"),
    "missing input": ("sizes", {"A": ONE, "B": ONE}, "expected 3 inputs but got 2 inputs for model 'sizes'"),
    "wrong datatype": (
        "echo",
        {"IN": np.ones(3, np.int32)},
        "inference input 'IN' data-type is 'INT32', but model 'echo' expects 'FP32'",
    ),
    "wrong shape": (
        "echo",
        {"IN": np.ones((1, 3), np.float32)},
        "unexpected shape for input 'IN' for model 'echo'. Expected [-1], got [1,3]",
    ),
}


@pytest.mark.parametrize(("model", "inputs", "text"), WRONG.values(), ids=WRONG)
def test_a_wrong_request_is_refused_with_tritons_words(
    client: Client, model: str, inputs: dict[str, Array], text: str
) -> None:
    with pytest.raises(InferenceServerException) as failure:
        client.infer(model, inputs)
    assert text in str(failure.value)
    expected = NOT_FOUND if model == "nobody" else INVALID
    assert status_of(failure.value) == expected[client.protocol]


def test_an_error_of_the_model_reaches_the_client(client: Client) -> None:
    with pytest.raises(InferenceServerException, match="told to fail with 5") as failure:
        client.infer("commands", {"IN": np.array([FAIL, 5], np.int64)})
    assert status_of(failure.value) == {"http": "500", "grpc": "StatusCode.INTERNAL"}[client.protocol]


def test_the_outputs_that_were_asked_for_come_back(client: Client) -> None:
    inputs: dict[str, Array] = {"A": ONE, "B": ONE, "COUNT": np.array([2], np.int64)}
    module = client.raw.__class__.__module__.rpartition(".")[0]
    wanted = __import__(module, fromlist=["InferRequestedOutput"]).InferRequestedOutput("SUM")
    assert set(client.infer("sizes", inputs)) == {"SUM", "OUT"}
    assert set(client.infer("sizes", inputs, outputs=[wanted])) == {"SUM"}
    assert client.result("sizes", inputs, request_id="mine").get_response() is not None


DATATYPES = [np.bool_, *(np.dtype(f"{sign}int{bits}").type for sign in ("u", "") for bits in (8, 16, 32, 64))]
DATATYPES += [np.float16, np.float32, np.float64]


def test_every_datatype_comes_back(new_server: Callable[..., Server]) -> None:
    server = new_server()
    kinds = {np.dtype(kind): f"TYPE_{np.dtype(kind).name.upper()}".replace("FLOAT", "FP") for kind in DATATYPES}
    for dtype, name in kinds.items():
        write_echo(server.repository, f"m_{dtype.name}", data_type=name)
    with server:
        for protocol in PROTOCOLS:
            with Client(protocol, server) as client:
                for dtype in kinds:
                    question = np.arange(5).astype(dtype)
                    for is_binary in (True, False):
                        if not is_binary and dtype == np.float16:
                            continue  # FP16 has no JSON form
                        answer = client.infer(f"m_{dtype.name}", {"IN": question}, is_binary)["OUT"]
                        assert answer.dtype == dtype
                        assert np.array_equal(answer, question)


def test_metrics_tell_the_truth(new_server: Callable[..., Server]) -> None:
    server = new_server()
    write_identity(server.repository, "identity", instances(2))
    model = Commands(server.repository)
    with server:
        calls = Calls(server, model)

        def memory_of(instance: str) -> float:
            return server.metric("tidepool_instance_memory_bytes", instance=instance) or 0.0

        for number in range(3):
            calls.send(ECHO, number).result(30)
        with pytest.raises(InferenceServerException):
            calls.send(FAIL).result(30)
        mine = {"model": "commands", "version": "1"}
        assert server.metric("nv_inference_request_success", **mine) == 3
        assert server.metric("nv_inference_request_failure", **mine) == 1
        assert server.metric("nv_inference_request_failure", reason="BACKEND", **mine) == 1
        assert server.metric("nv_inference_count", **mine) == 3
        assert server.metric("nv_inference_exec_count", **mine) == 4
        assert server.metric("nv_inference_request_duration_us", **mine)
        assert server.metric("nv_inference_pending_request_count", **mine) == 0
        assert server.metric("nv_inference_request_success", model="identity") in (None, 0)
        for instance in ("identity_0_0", "identity_0_1", "commands_0_0"):
            assert server.metric("tidepool_instance_ready", instance=instance) == 1
            until(lambda: 5e6 < memory_of(instance) < 2e9, 10, "the memory of a worker that has loaded")  # noqa: B023

        with pytest.raises(InferenceServerException):
            calls.send(SEGFAULT).result(30)
        until(lambda: server.is_healthy("ready"), 30, "the model is back")
        pid = int(calls.send(ECHO, 9).result(30)[1])
        os.kill(pid, signal.SIGKILL)
        until(lambda: server.metric("tidepool_instance_restarts", cause="killed"), 30, "the kill is counted")
        assert server.metric("tidepool_instance_restarts", cause="crash", **mine) == 2
        assert server.metric("tidepool_instance_restarts", cause="killed", **mine) == 1
        assert server.metric("tidepool_instance_restarts", model="identity") in (None, 0)


def test_readiness_tells_the_truth_while_the_only_worker_of_a_model_is_down(
    new_server: Callable[..., Server],
) -> None:
    server = new_server()
    write_identity(server.repository, "other")
    model = Commands(server.repository, load="hang")
    with server:
        pid = int(Calls(server, model).send(ECHO).result(30)[1])
        others = set(server.pids()) - {pid}
        with Client("http", server) as over_http, Client("grpc", server) as over_grpc:
            for is_up in (True, False, True):
                if not is_up:
                    model.be_bad(True)
                    os.kill(pid, signal.SIGKILL)
                elif model.is_bad:
                    model.be_bad(False)
                    (hanging,) = set(server.pids()) - others
                    os.kill(hanging, signal.SIGKILL)
                for client in (over_http, over_grpc):
                    until(lambda: client.raw.is_server_ready() == is_up, 30, f"ready is {is_up}")  # noqa: B023
                    assert client.raw.is_model_ready("commands") == is_up
                    assert client.raw.is_model_ready("other")
                    assert client.raw.is_server_live()
                    assert client.infer("other", {"IN": ONE})["OUT"] is not None
                until(lambda: server.metric("tidepool_instance_ready", model="commands") == is_up, 10, "metrics agree")  # noqa: B023
