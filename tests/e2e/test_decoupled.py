"""Models that answer by response senders, as clients of both protocols see them."""

import http.client
import json
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton

from tests.support.clients import PROTOCOLS, Client
from tests.support.repository import instances, tensor, write_model
from tests.support.server import Server
from tests.support.waiting import until

SECONDS = 60.0
TOKENS = 300
PREAMBLE = """
import asyncio, os, threading, time
import numpy as np
import triton_python_backend_utils as pb_utils

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


def response(value):
    return pb_utils.InferenceResponse([pb_utils.Tensor("OUT", np.array([value], np.int32))])


def count(request):
    return int(request.inputs()[0].as_numpy()[0])


class TritonPythonModel:
"""
SOURCES = {
    # 0, 1, ... by a thread for each request
    "threads": """
def execute(self, requests):
    for request in requests:
        threading.Thread(target=self.answer, args=(request.get_response_sender(), count(request))).start()
def answer(self, sender, tokens):
    for number in range(tokens):
        sender.send(response(number))
    sender.send(flags=FINAL)
""",
    # the same by coroutines, which stop when their client has gone
    "coroutines": """
async def execute(self, requests):
    for request in requests:
        sender = request.get_response_sender()
        for number in range(count(request)):
            if request.is_cancelled():
                open(os.path.join(pb_utils.get_model_dir(), *[".."] * 3, "cancelled"), "w").close()
                break
            sender.send(response(number))
            await asyncio.sleep(0)
        sender.send(flags=FINAL)
""",
    # one response, by a thread, after execute has returned
    "late": """
def execute(self, requests):
    for request in requests:
        threading.Timer(0.05, self.answer, args=(request.get_response_sender(), count(request))).start()
def answer(self, sender, value):
    sender.send(response(value), FINAL)
""",
    # dies after the third response
    "dies": """
def execute(self, requests):
    sender = requests[0].get_response_sender()
    for number in range(3):
        sender.send(response(number))
    time.sleep(0.5)
    os._exit(3)
""",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("decoupled"))
    io = f"input [ {tensor('IN', 'TYPE_INT32', '[ 1 ]')} ]\noutput [ {tensor('OUT', 'TYPE_INT32', '[ 1 ]')} ]\n"
    for name, body in SOURCES.items():
        decoupled = "" if name == "late" else "model_transaction_policy { decoupled: true }\n"
        directory = write_model(made.repository, name, f'backend: "python"\n{io}{decoupled}{instances(1)}\n')
        indented = "".join(f"    {line}\n" for line in body.splitlines())
        (directory / "1" / "model.py").write_text(PREAMBLE + indented)
    with made:
        yield made


def by_http(server: Server, model: str, tokens: int) -> Iterator[Any]:
    """The documents of server-sent events."""
    connection = http.client.HTTPConnection(server.address("http"), timeout=SECONDS)
    try:
        connection.request("POST", f"/v2/models/{model}/generate_stream", json.dumps({"IN": tokens}))
        reply = connection.getresponse()
        for line in reply:
            if line.startswith(b"data: "):
                yield json.loads(line.removeprefix(b"data: "))
    finally:
        connection.close()


def by_grpc(server: Server, model: str, tokens: int) -> list[int]:
    """The numbers that a stream gives."""
    told: SimpleQueue[Any] = SimpleQueue()
    numbers: list[int] = []
    with triton.InferenceServerClient(server.address("grpc")) as client:
        client.start_stream(lambda result, error: told.put((result, error)))
        order = triton.InferInput("IN", [1], "INT32")
        order.set_data_from_numpy(np.array([tokens], np.int32))
        client.async_stream_infer(model, [order], enable_empty_final_response=True)
        while True:
            result, error = told.get(timeout=SECONDS)
            assert error is None, error
            if not result.get_response().outputs:
                return numbers
            numbers.append(int(result.as_numpy("OUT")[0]))


@pytest.mark.parametrize("model", ["threads", "coroutines"])
def test_server_sent_events(server: Server, model: str) -> None:
    for tokens in (0, 1, 40):
        assert [event["OUT"] for event in by_http(server, model, tokens)] == list(range(tokens))


@pytest.mark.parametrize("model", ["threads", "coroutines"])
def test_many_streams_at_once_lose_and_reorder_nothing(server: Server, model: str) -> None:
    def read(number: int) -> list[int]:
        if number % 2:
            return by_grpc(server, model, TOKENS)
        return [event["OUT"] for event in by_http(server, model, TOKENS)]

    with ThreadPoolExecutor(10) as pool:
        for numbers in pool.map(read, range(10)):
            assert numbers == list(range(TOKENS))
    until(lambda: server.shm_bytes() < 8 << 20, 30, "the memory comes back")


def test_a_client_that_closes_its_connection_stops_the_model(server: Server) -> None:
    events = by_http(server, "coroutines", 10_000_000)
    assert next(events)["OUT"] == 0
    del events
    until((server.directory / "cancelled").exists, 30, "the model knows")
    assert [event["OUT"] for event in by_http(server, "coroutines", 3)] == [0, 1, 2]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_response_after_execute(server: Server, protocol: str) -> None:
    with Client(protocol, server) as client:
        for value in range(3):
            answer = client.infer("late", {"IN": np.array([value], np.int32)})["OUT"]
            assert answer is not None
            assert answer.tolist() == [value]
        assert client.statistics("late")["inference_stats"]["success"]["count"] >= 3


def test_a_worker_that_dies_in_the_middle_of_a_stream(server: Server) -> None:
    events = list(by_http(server, "dies", 1))
    assert [event["OUT"] for event in events[:3]] == [0, 1, 2]
    assert "the worker of instance 'dies_0_0' died while executing the request" in events[3]["error"]


def test_statistics_of_a_stream(server: Server) -> None:
    list(by_http(server, "threads", 5))
    with Client("http", server) as client:
        stats = client.statistics("threads")["inference_stats"]
    assert stats["success"]["count"] > 0
    assert stats["fail"]["count"] == 0


def test_a_killed_worker_ends_its_streams_and_is_replaced(server: Server) -> None:
    pids = set(server.pids())
    begun = threading.Event()
    errors: list[Any] = []

    def read() -> None:
        for event in by_http(server, "threads", 10_000_000):
            begun.set()
            if "error" in event:
                errors.append(event["error"])

    reader = threading.Thread(target=read)
    reader.start()
    assert begun.wait(SECONDS)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    reader.join(SECONDS)
    assert not reader.is_alive()
    assert len(errors) == 1
    until(lambda: _works(server), 30, "the model is back")


def _works(server: Server) -> bool:
    return [event.get("OUT") for event in by_http(server, "threads", 2)] == [0, 1]
