"""A hundred clients read a thousand tokens each, at once, while ten more have stopped reading."""

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import grpc
import numpy as np
import psutil
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.support.repository import instances, tensor, write_model
from tests.support.server import Server
from tests.support.waiting import until

CLIENTS = 50
"""Of each protocol."""
TOKENS = 1000
STOPPED = 5
"""Clients of each protocol that read one token and no more."""
ENDLESS = 10_000_000
SECONDS = 120.0
GROWTH = 16 << 20
"""Bytes that all processes together may grow by (seen: 1 to 2 MB)."""
MODEL = """
import threading
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            threading.Thread(target=self.answer, args=(request,), daemon=True).start()

    def answer(self, request):
        sender, tokens = request.get_response_sender(), int(request.inputs()[0].as_numpy()[0])
        for number in range(tokens):
            if request.is_cancelled():
                break
            sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("OUT", np.array([number], np.int32))]))
        sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("tokens"))
    io = f"input [ {tensor('IN', 'TYPE_INT32', '[ 1 ]')} ]\noutput [ {tensor('OUT', 'TYPE_INT32', '[ 1 ]')} ]\n"
    config = f'backend: "python"\n{io}model_transaction_policy {{ decoupled: true }}\n{instances(1)}\n'
    (write_model(made.repository, "tokens", config) / "1" / "model.py").write_text(MODEL)
    with made:
        yield made


def question(tokens: int) -> bytes:
    """An HTTP request for so many server-sent events."""
    body = json.dumps({"IN": tokens})
    head = f"POST /v2/models/tokens/generate_stream HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    return (head + body).encode()


def message(tokens: int) -> service_pb2.ModelInferRequest:
    """The same for a gRPC stream."""
    request = service_pb2.ModelInferRequest(model_name="tokens", raw_input_contents=[np.int32(tokens).tobytes()])
    request.inputs.add(name="IN", datatype="INT32", shape=[1])
    request.parameters["triton_enable_empty_final_response"].bool_param = True
    return request


async def by_http(server: Server) -> list[int]:
    """The tokens of one client."""
    host, port = server.address("http").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(question(TOKENS))
    tokens = []
    while len(tokens) < TOKENS:
        line = await reader.readline()
        assert line, f"the stream ended after {len(tokens)} tokens"
        if line.startswith(b"data: "):
            tokens.append(json.loads(line.removeprefix(b"data: "))["OUT"])
    writer.close()
    return tokens


async def by_grpc(server: Server) -> list[int]:
    """The tokens of one client on a connection of its own."""
    tokens: list[int] = []
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(server.address("grpc"), options=options) as channel:
        call = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelStreamInfer(iter([message(TOKENS)]))
        async for reply in call:
            assert not reply.error_message
            tokens += [int(np.frombuffer(raw, np.int32)[0]) for raw in reply.infer_response.raw_output_contents]
    return tokens


async def everybody(server: Server) -> list[list[int]]:
    """The tokens of all clients."""
    clients = [read(server) for read in (by_http, by_grpc) for _ in range(CLIENTS)]
    return await asyncio.wait_for(asyncio.gather(*clients), SECONDS)


def stop_reading(server: Server, stack: ExitStack) -> None:
    """Clients that ask for a stream without end and take next to nothing of it."""
    host, port = server.address("http").split(":")
    for _ in range(STOPPED):
        connection = stack.enter_context(socket.create_connection((host, int(port)), SECONDS))
        connection.sendall(question(ENDLESS))
        assert connection.recv(64)
        channel = stack.enter_context(
            grpc.insecure_channel(server.address("grpc"), options=[("grpc.use_local_subchannel_pool", 1)])
        )
        call = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelStreamInfer(iter([message(ENDLESS)]))
        stack.callback(call.cancel)
        assert next(call).infer_response.outputs


def memory(server: Server) -> int:
    """Resident bytes of the server's processes."""
    root = psutil.Process(server.process.pid)
    return sum(process.memory_info().rss for process in [root, *root.children(recursive=True)])


def test_nothing_is_lost_or_reordered_and_who_does_not_read_costs_nothing(server: Server) -> None:
    with ExitStack() as stack:
        stop_reading(server, stack)
        for tokens in asyncio.run(everybody(server)):  # the first time everything grows to its size
            assert tokens == list(range(TOKENS))
        before = memory(server)
        for tokens in asyncio.run(everybody(server)):
            assert tokens == list(range(TOKENS))
        assert memory(server) - before < GROWTH
    until(lambda: server.shm_bytes() < 16 << 20, 30, "the memory comes back")
