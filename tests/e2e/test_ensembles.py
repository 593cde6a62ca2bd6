"""Ensembles through the whole server: what comes out, who reads whose memory, and that none of it stays."""

import json
import os
import random
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from tests.support.clients import NOT_FOUND, PROTOCOLS, Client, is_cut, status_of
from tests.support.regions import Region
from tests.support.repository import instances, tensor, write_identity, write_model
from tests.support.server import Server
from tests.support.waiting import until

COUNT = 20_000
SECONDS = 30.0
IO = f"input [ {tensor('IN')} ]\noutput [ {tensor('OUT')} ]\n"
PREAMBLE = """import json, os, time
import numpy as np
import triton_python_backend_utils as pb_utils

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


def array(request, name="IN"):
    return pb_utils.get_input_tensor_by_name(request, name).as_numpy()


def answer(**outputs):
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, value) for name, value in outputs.items()])


def call(model, value):
    inputs = [pb_utils.Tensor("IN", value)]
    request = pb_utils.InferenceRequest(inputs=inputs, requested_output_names=["OUT"], model_name=model)
    response = request.exec()
    if response.has_error():
        raise pb_utils.TritonModelException(response.error().message())
    return response.output_tensors()[0].as_numpy()


class TritonPythonModel:
"""
SOURCES = {
    "add": "    def execute(self, requests):\n        return [answer(OUT=array(r) + 1) for r in requests]\n",
    # writes to its input: nobody else may see that
    "spoil": """
    def execute(self, requests):
        for request in requests:
            array(request)[...] = -1
        return [answer(OUT=array(r)) for r in requests]
""",
    "slow": """
    def execute(self, requests):
        time.sleep(0.3)
        return [answer(OUT=array(r) + 1) for r in requests]
""",
    "caller": """
    def execute(self, requests):
        return [answer(OUT=call("line", array(r)) * 2) for r in requests]
""",
    # the last value of each response of a decoupled ensemble
    "gather": """
    def execute(self, requests):
        inputs = [pb_utils.Tensor("IN", array(requests[0]))]
        request = pb_utils.InferenceRequest(inputs=inputs, requested_output_names=["OUT"], model_name="stream")
        found = [r.output_tensors()[0].as_numpy() for r in request.exec(decoupled=True) if r.output_tensors()]
        return [answer(OUT=np.array([each[-1] for each in found], np.float32))]
""",
    "itself": """
    def execute(self, requests):
        return [answer(OUT=call("around", array(r))) for r in requests]
""",
    # as many responses as its first value says
    "many": """
    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            for number in range(int(array(request)[0])):
                sender.send(answer(OUT=array(request) + number))
            sender.send(flags=FINAL)
""",
}
Steps = list[tuple[str, Mapping[str, str], Mapping[str, str]]]


def write_source(repository: Path, name: str, body: str, io: str = IO) -> None:
    decoupled = "model_transaction_policy { decoupled: true }\n" if name == "many" else ""
    directory = write_model(repository, name, f'backend: "python"\n{io}{decoupled}{instances(1)}\n')
    (directory / "1" / "model.py").write_text(PREAMBLE + body)


def write_ensemble(repository: Path, name: str, steps: Steps, io: str = IO) -> None:
    def maps(field: str, names: Mapping[str, str]) -> str:
        return " ".join(f'{field} {{ key: "{key}" value: "{value}" }}' for key, value in names.items())

    written = [
        f'{{ model_name: "{model}" model_version: -1 {maps("input_map", inputs)} {maps("output_map", outputs)} }}'
        for model, inputs, outputs in steps
    ]
    scheduling = f"ensemble_scheduling {{ step [ {', '.join(written)} ] }}\n"
    write_model(repository, name, f'platform: "ensemble"\n{io}{scheduling}')


def line(*models: str) -> Steps:
    """Models one after the other, from IN to OUT."""
    names = ["IN", *[f"t{number}" for number in range(1, len(models))], "OUT"]
    return [(model, {"IN": names[i]}, {"OUT": names[i + 1]}) for i, model in enumerate(models)]


def write_negative(repository: Path) -> None:
    onnx = pytest.importorskip("onnx")
    floats: dict[str, Any] = {"elem_type": onnx.TensorProto.FLOAT, "shape": ("n",)}
    tensors = [onnx.helper.make_tensor_value_info(name, **floats) for name in ("IN", "OUT")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Neg", ["IN"], ["OUT"])], "g", tensors[:1], tensors[1:])
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    directory = write_model(repository, "negative", f'platform: "onnxruntime_onnx"\n{IO}{instances(1)}\n')
    onnx.save(made, directory / "1" / "model.onnx")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("ensembles")
    flags = [f"--trace-config=triton,file={directory}/trace.json", "--trace-config=level=OFF"]
    made = Server(directory, "", *flags)
    for name, body in SOURCES.items():
        write_source(made.repository, name, body)
    write_identity(made.repository, "identity", instances(2))
    write_negative(made.repository)
    write_ensemble(made.repository, "line", line("add", "identity", "negative", "add"))
    write_ensemble(made.repository, "calling", line("add", "caller", "identity"))
    write_ensemble(made.repository, "around", line("itself"))
    write_ensemble(made.repository, "slowly", line("identity", "slow", "add"))
    write_ensemble(made.repository, "stream", line("add", "many", "identity"))
    fan = [
        ("spoil", {"IN": "t"}, {"OUT": "x"}),
        ("add", {"IN": "t"}, {"OUT": "y"}),
        ("identity", {"IN": "IN"}, {"OUT": "t"}),
    ]
    outputs = f"output [ {tensor('t')}, {tensor('x')}, {tensor('y')} ]\n"
    write_ensemble(made.repository, "fan", fan, f"input [ {tensor('IN')} ]\n{outputs}")
    with made:
        yield made


@pytest.fixture(params=PROTOCOLS)
def client(request: pytest.FixtureRequest, server: Server) -> Iterator[Client]:
    with Client(request.param, server) as connected:
        yield connected


@pytest.fixture(autouse=True)
def _no_memory_is_left(server: Server) -> Iterator[None]:
    yield
    until(lambda: server.metric("tidepool_instance_shm_used_bytes") == 0, SECONDS, "all blocks have come back")


def values(count: int = COUNT) -> np.ndarray[Any, Any]:
    return np.random.default_rng(count).integers(0, 1000, count).astype(np.float32)


@pytest.mark.parametrize("count", [3, COUNT])
def test_a_line_of_models(client: Client, count: int) -> None:
    given = values(count)
    np.testing.assert_array_equal(client.infer("line", {"IN": given})["OUT"], -(given + 1) + 1)


def test_several_readers_of_one_tensor(client: Client) -> None:
    given = values()
    found = client.infer("fan", {"IN": given})
    np.testing.assert_array_equal(found["t"], given)
    np.testing.assert_array_equal(found["x"], np.full_like(given, -1))
    np.testing.assert_array_equal(found["y"], given + 1)


def test_models_that_call_ensembles_in_ensembles(client: Client) -> None:
    given = values()
    np.testing.assert_array_equal(client.infer("caller", {"IN": given})["OUT"], -given * 2)
    np.testing.assert_array_equal(client.infer("calling", {"IN": given})["OUT"], -(given + 1) * 2)


def test_a_model_takes_the_stream_of_an_ensemble(client: Client) -> None:
    given = values()
    given[0] = 49
    found = client.infer("gather", {"IN": given})["OUT"]
    np.testing.assert_array_equal(np.sort(found), given[-1] + 1 + np.arange(50))


def test_a_call_that_would_wait_for_itself_is_an_error(client: Client) -> None:
    with pytest.raises(InferenceServerException, match=r"in ensemble 'around', .*\(itself -> itself\)"):
        client.infer("around", {"IN": values(3)})


def test_memory_of_the_client(client: Client) -> None:
    given = values()
    with Region(client, 1 << 20) as region:
        client.raw.infer("line", [region.input(given)], outputs=[region.output(given.nbytes)])
        np.testing.assert_array_equal(region.read(np.float32, [COUNT]), -given)


def test_a_stream(server: Server) -> None:
    given = values()
    given[0] = 39
    responses: SimpleQueue[tuple[Any, Any]] = SimpleQueue()
    with triton.InferenceServerClient(server.address("grpc")) as raw:
        raw.start_stream(lambda result, error: responses.put((result, error)))
        tensors = [triton.InferInput("IN", [COUNT], "FP32")]
        tensors[0].set_data_from_numpy(given)
        raw.async_stream_infer("stream", tensors, enable_empty_final_response=True)
        arrays = []
        for _ in range(40):
            result, error = responses.get(timeout=SECONDS)
            assert error is None
            arrays.append(result.as_numpy("OUT"))
    for number, array in enumerate(sorted(arrays, key=lambda each: float(each[1]))):  # two instances may swap some
        np.testing.assert_array_equal(array, given + 1 + number)


def test_a_stream_that_its_client_leaves(server: Server) -> None:
    given = values()
    given[0] = 10_000
    responses: SimpleQueue[tuple[Any, Any]] = SimpleQueue()
    with triton.InferenceServerClient(server.address("grpc")) as raw:
        raw.start_stream(lambda result, error: responses.put((result, error)))
        tensors = [triton.InferInput("IN", [COUNT], "FP32")]
        tensors[0].set_data_from_numpy(given)
        raw.async_stream_infer("stream", tensors)
        assert responses.get(timeout=SECONDS)[1] is None
        raw.stop_stream(cancel_requests=True)
    with Client("http", server) as client:
        until(lambda: client.statistics("stream")["inference_stats"]["fail"]["count"] > 0, SECONDS, "it is given up")
        assert client.infer("line", {"IN": given})["OUT"] is not None


def test_a_client_that_gives_up(server: Server) -> None:
    with Client("grpc", server) as client:
        before = client.statistics("add")["inference_stats"]["success"]["count"]
        done = threading.Event()
        tensors = [triton.InferInput("IN", [COUNT], "FP32")]
        tensors[0].set_data_from_numpy(values())
        call = client.raw.async_infer("slowly", tensors, lambda result, error: done.set())
        until(lambda: server.metric("nv_inference_exec_count", model="identity") != 0, SECONDS, "it runs")
        call.cancel()
        assert done.wait(SECONDS)
        failed = "nv_inference_request_failure"
        until(lambda: server.metric(failed, model="slowly", reason="CANCELED") == 1, SECONDS, "it is cancelled")
        assert client.statistics("add")["inference_stats"]["success"]["count"] == before


def test_traces_have_parents(server: Server) -> None:
    with Client("http", server) as client:
        client.raw.update_trace_settings(
            "line", {"trace_level": ["TIMESTAMPS"], "trace_rate": "1", "log_frequency": "1"}
        )
        client.infer("line", {"IN": values(3)}, request_id="traced")
        client.raw.update_trace_settings("line", {"trace_level": ["OFF"]})
    file = server.directory / "trace.json.0"
    until(file.exists, SECONDS, "the trace is written")
    headers = [event for event in json.loads(file.read_text()) if "timestamps" not in event]
    (root,) = [header for header in headers if header["model_name"] == "line"]
    assert "parent_id" not in root
    assert [h["model_name"] for h in headers if h.get("parent_id") == root["id"]] == [
        "add",
        "identity",
        "negative",
        "add",
    ]


def test_workers_that_die_at_any_time(server: Server) -> None:
    """Under load, with a SIGKILL ten times: right answers, honest errors, and (above) no memory that stays."""
    is_over = threading.Event()
    wrong: list[str] = []
    counts = {"fine": 0}

    def ask(number: int) -> None:
        given = values() + number
        while not is_over.is_set():
            with Client(PROTOCOLS[number % 2], server) as client:
                try:
                    found = client.infer("calling" if number % 3 == 0 else "fan", {"IN": given})
                except InferenceServerException as error:
                    if not is_cut(error) and "died" not in str(error):
                        wrong.append(str(error))
                    continue
                expected = found["y"] if "y" in found else -found["OUT"] / 2
                counts["fine"] += 1
                if not np.array_equal(expected, given + 1):
                    wrong.append("wrong values")

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask, number) for number in range(4)]
        for _ in range(10):
            time.sleep(0.2)  # the pace of the trouble: nothing is waited for
            os.kill(random.choice(server.pids()), signal.SIGKILL)
        is_over.set()
        for each in asking:
            each.result(SECONDS)
    assert not wrong
    assert counts["fine"] > 0
    until(lambda: server.is_healthy("ready"), SECONDS, "all models are back")
    with Client("http", server) as client:
        np.testing.assert_array_equal(client.infer("line", {"IN": values()})["OUT"], -values())


def test_loading_and_unloading(tmp_path: Path) -> None:
    server = Server(tmp_path, "", "--model-control-mode=explicit")
    for name in ("one", "two"):
        write_identity(server.repository, name)
    write_ensemble(server.repository, "both", line("one", "two"))
    write_ensemble(server.repository, "lost", line("one", "nothing"))
    with server, Client("http", server) as client:
        client.raw.load_model("both")
        np.testing.assert_array_equal(client.infer("both", {"IN": values()})["OUT"], values())
        assert client.raw.is_model_ready("two")
        client.raw.unload_model("two")
        with pytest.raises(InferenceServerException) as raised:
            client.infer("both", {"IN": values()})
        assert status_of(raised.value) == NOT_FOUND["http"]
        assert client.raw.is_model_ready("one")
        client.raw.load_model("both")
        client.raw.unload_model("both", unload_dependents=True)
        assert not client.raw.is_model_ready("one")
        with pytest.raises(
            InferenceServerException, match=r"ensemble lost contains models that are not available .*: nothing"
        ):
            client.raw.load_model("lost")
