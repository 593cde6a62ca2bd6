"""Models that call other models, through the whole server."""

import json
import os
import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from tests.support.clients import PROTOCOLS, Client
from tests.support.repository import instances, tensor, write_identity, write_model
from tests.support.server import Server
from tests.support.waiting import until

TEXT = tensor("TEXT", "TYPE_STRING", "[ 1 ]")
IO = f"input [ {tensor('IN')} ]\noutput [ {tensor('OUT')}, {TEXT} ]\n"
PREAMBLE = """import asyncio, json, os
import numpy as np
import triton_python_backend_utils as pb_utils

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


def array(request):
    return request.inputs()[0].as_numpy()


def call(model, value, **options):
    inputs = [pb_utils.Tensor("IN", np.asarray(value, dtype=np.float32))]
    return pb_utils.InferenceRequest(inputs=inputs, requested_output_names=["OUT"], model_name=model, **options)


def out(response):
    if response.has_error():
        raise pb_utils.TritonModelException(response.error().message())
    return response.output_tensors()[0].as_numpy()


def answer(value):
    return pb_utils.InferenceResponse([pb_utils.Tensor("OUT", np.asarray(value, dtype=np.float32))])


class TritonPythonModel:
"""
SOURCES = {
    # as many responses as IN says, each its number
    "repeat": """
def execute(self, requests):
    for request in requests:
        sender = request.get_response_sender()
        for number in range(int(array(request)[0])):
            sender.send(answer(np.full(2000, number)))
        sender.send(flags=FINAL)
""",
    # IN + 1
    "add": """
def execute(self, requests):
    return [answer(array(request) + 1) for request in requests]
""",
    # add of add
    "twice": """
def execute(self, requests):
    return [answer(out(call("add", out(call("add", array(request)).exec())).exec())) for request in requests]
""",
    # twice of twice, by coroutines, three at a time
    "deep": """
async def execute(self, requests):
    async def one(request):
        first = out(await call("twice", array(request)).async_exec())
        results = await asyncio.gather(*[call("twice", first).async_exec() for _ in range(3)])
        return answer(np.median([out(result) for result in results], axis=0))
    return list(await asyncio.gather(*[one(request) for request in requests]))
""",
    # the sum of what repeat gives, and how many responses it was
    "sum": """
def execute(self, requests):
    answers = []
    for request in requests:
        values = [out(r)[0] for r in call("repeat", array(request)).exec(decoupled=True) if r.output_tensors()]
        answers.append(answer([sum(values), len(values)]))
    return answers
""",
    # what the answer to the model and version named in a parameter is, as text
    "ask": """
def execute(self, requests):
    texts = []
    for request in requests:
        asked = json.loads(request.parameters())
        response = call(asked["model"], array(request), model_version=asked.get("version", -1)).exec()
        error = response.error()
        texts.append("fine" if error is None else f"{error.code()} {error.message()}")
    return [pb_utils.InferenceResponse([pb_utils.Tensor("TEXT", np.array([t], dtype=np.object_))]) for t in texts]
""",
    # calls itself until IN is 0
    "itself": """
def execute(self, requests):
    return [answer([0] if array(r)[0] == 0 else out(call("itself", array(r) - 1).exec())) for r in requests]
""",
    # dies while its caller waits
    "die": """
def execute(self, requests):
    os._exit(3)
""",
}
DECOUPLED = {"repeat"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("bls"))
    write_identity(made.repository, "identity", instances(2))
    for name, body in SOURCES.items():
        write_source(made.repository, name, body)
    with made:
        yield made


def write_source(repository: Path, name: str, body: str) -> None:
    decoupled = "model_transaction_policy { decoupled: true }\n" if name in DECOUPLED else ""
    group = instances(2 if name == "itself" else 1)
    directory = write_model(repository, name, f'backend: "python"\n{IO}{decoupled}{group}\n')
    indented = "".join(f"    {line}\n" for line in body.splitlines())
    (directory / "1" / "model.py").write_text(PREAMBLE + indented)


@pytest.fixture(params=PROTOCOLS)
def connected(request: pytest.FixtureRequest, server: Server) -> Iterator[Client]:
    with Client(request.param, server) as client:
        yield client


def infer(client: Client, model: str, *values: float, **options: Any) -> Any:
    return client.infer(model, {"IN": np.array(values, np.float32)}, **options)["OUT"]


def test_calls_of_calls(connected: Client) -> None:
    assert infer(connected, "twice", 1, 2).tolist() == [3, 4]
    assert infer(connected, "deep", *range(5000)).tolist() == [n + 4 for n in range(5000)]


def test_a_stream_of_another_model(connected: Client) -> None:
    assert infer(connected, "sum", 3).tolist() == [3, 3]
    assert infer(connected, "sum", 0).tolist() == [0, 0]
    assert infer(connected, "sum", 100).tolist() == [4950, 100]


@pytest.mark.parametrize(
    ("model", "version", "expected"),
    [
        ("identity", -1, "fine"),
        (
            "nothing",
            -1,
            "1 Model nothing - Error when running inference: Failed for execute the inference request. Model "
            "'nothing' is not ready.",
        ),
        (
            "identity",
            9,
            "1 Model identity - Error when running inference: Failed for execute the inference request. Model "
            "'identity' is not ready.",
        ),
        (
            "repeat",
            -1,
            "1 Model repeat - Error when running inference: Model repeat is using the decoupled. The current BLS "
            "request call doesn't support models using the decoupled transaction policy. Please use "
            "'decoupled=True' argument to the 'exec' or 'async_exec' calls for decoupled models.'",
        ),
    ],
)
def test_errors(server: Server, model: str, version: int, expected: str) -> None:
    with Client("http", server) as client:
        asked = {"model": model, "version": version}
        outputs = client.infer("ask", {"IN": np.ones(1, np.float32)}, parameters=asked)
    assert outputs["TEXT"] is not None
    assert outputs["TEXT"].tolist() == [expected.encode()]


def test_a_call_that_would_wait_for_itself_is_an_error(connected: Client) -> None:
    assert infer(connected, "itself", 1).tolist() == [0]
    with pytest.raises(InferenceServerException, match=r"all its instances wait for .* this call \(itself -> itself\)"):
        infer(connected, "itself", 2)
    assert infer(connected, "itself", 1).tolist() == [0]


def test_many_at_once_and_the_memory_of_all(server: Server) -> None:
    def ask(number: int) -> None:
        with Client(PROTOCOLS[number % 2], server) as client:
            for count in range(10):
                values = np.arange(3000) + number + count
                assert (
                    infer(client, ("deep", "twice")[count % 2], *values).tolist()
                    == (values + (4, 2)[count % 2]).tolist()
                )

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(8)))
    until(lambda: server.shm_bytes() < 8 << 20, 30, "the memory of the calls comes back")


def test_the_death_of_a_called_model(tmp_path: Path) -> None:
    server = Server(tmp_path)
    for name in ("die", "ask", "add", "twice"):
        write_source(server.repository, name, SOURCES[name])
    with server, Client("http", server) as client:
        outputs = client.infer("ask", {"IN": np.ones(1, np.float32)}, parameters={"model": "die"})
        assert outputs["TEXT"] is not None
        (text,) = outputs["TEXT"].tolist()
        assert text.startswith(b"4 the worker of instance 'die_0_0' died while executing the request")
        assert infer(client, "twice", 1).tolist() == [3]
        found = re.search(r"^\| twice .*\| twice_0_0 +\| (\d+) ", server.log(), re.MULTILINE)
        assert found is not None
        os.kill(int(found[1]), signal.SIGKILL)
        until(lambda: _answers(client), 30, "the caller is back")


def _answers(client: Client) -> bool:
    try:
        return bool(infer(client, "twice", 1).tolist() == [3])
    except InferenceServerException:
        return False


def test_model_control_from_a_model(tmp_path: Path) -> None:
    server = Server(tmp_path, "", "--model-control-mode=explicit", "--load-model=control")
    write_source(server.repository, "add", SOURCES["add"])
    body = """
def execute(self, requests):
    ready = [pb_utils.is_model_ready("add")]
    pb_utils.load_model("add")
    ready.append(pb_utils.is_model_ready("add"))
    value = out(call("add", array(requests[0])).exec())[0]
    pb_utils.unload_model("add")
    try:
        pb_utils.load_model("nothing")
    except pb_utils.TritonModelException as error:
        text = str(error)
    texts = [json.dumps([*ready, float(value), text])]
    return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", np.array(texts, dtype=np.object_))])]
"""
    write_source(server.repository, "control", body)
    with server, Client("http", server) as client:
        (text,) = infer(client, "control", 1).tolist()
        first, second, value, error = json.loads(text)
        assert (first, second, value) == (False, True, 2)
        assert error.startswith(
            "Failed to load model: Failed to process the request for model 'control_0_0', message: failed to load "
            "'nothing', failed to poll from model repository"
        )
