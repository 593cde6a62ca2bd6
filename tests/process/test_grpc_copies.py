"""How often our own code copies the bytes of a tensor on their way through the gRPC frontend."""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from itertools import count
from typing import Any

import pytest
from tritonclient.grpc import service_pb2

from broker.messages import Directory, ErrorCode, Infer, Response
from frontends.grpc.infer import infer
from frontends.grpc.stream import Streams
from shm import copies
from shm.arena import Arena, ArenaSettings, Block
from shm.ref import TensorRef
from shm.region import name_for, sweep
from shm.tensor import Regions
from tests.support.memory_client import service_of

SIZE = 1 << 20


class EchoClient:
    """What `infer` uses of `broker.client.Client`: real blocks, whose bytes come back as the outputs."""

    def __init__(self, arena: Arena) -> None:
        self.arena = arena
        self.regions = Regions()
        self.directory = Directory({}, {})

    def number(self) -> int:
        return 1

    async def store(
        self, _model: str, name: str, datatype: str, shape: tuple[int, ...], data: Any, blocks: list[Block]
    ) -> TensorRef:
        blocks.append(self.arena.allocate(len(data)))
        return blocks[-1].store(name, datatype, shape, data)

    async def infer(self, request: Infer, _blocks: list[Block]) -> Response:
        return Response(1, ErrorCode.OK, "", request.model, 1, request.inputs, {})

    async def stream(self, request: Infer, _blocks: list[Block]) -> AsyncGenerator[Response, None]:
        yield await self.infer(request, _blocks)

    def release(self, _blocks: list[Block]) -> None:
        pass

    def done_with(self, _outputs: tuple[TensorRef, ...]) -> None:
        pass


@pytest.fixture
def client() -> Iterator[EchoClient]:
    server = os.urandom(4).hex()
    opened: list[str] = []
    names = (name_for(server, "t", number) for number in count())
    arena = Arena(ArenaSettings("test", 2 * SIZE, SIZE, 0), names, opened.append, opened.append)
    arena.open()
    client = EchoClient(arena)
    client.regions.open(opened[0])
    yield client
    sweep(server)


def test_raw_contents_are_copied_once_in_and_once_out(client: Any) -> None:
    contents = os.urandom(SIZE)
    request = service_pb2.ModelInferRequest(model_name="m", raw_input_contents=[contents])
    request.inputs.add(name="A", datatype="UINT8", shape=[SIZE])
    copies.by_place.clear()
    response = asyncio.run(infer(service_of(client), request.SerializeToString(), {}, lambda call: call(None)))
    assert service_pb2.ModelInferResponse.FromString(response).raw_output_contents == [contents]
    assert copies.by_place == {"arena": SIZE, "response": SIZE}


def test_a_stream_copies_no_more(client: Any) -> None:
    contents = os.urandom(SIZE)
    request = service_pb2.ModelInferRequest(model_name="m", raw_input_contents=[contents])
    request.inputs.add(name="A", datatype="UINT8", shape=[SIZE])
    written: list[bytes] = []

    async def requests() -> AsyncIterator[bytes]:
        yield request.SerializeToString()

    async def write(data: bytes) -> None:
        written.append(data)

    copies.by_place.clear()
    asyncio.run(Streams(service_of(client)).serve(requests(), write, {}))
    response = service_pb2.ModelStreamInferResponse.FromString(written[0])
    assert response.infer_response.raw_output_contents == [contents]
    assert copies.by_place == {"arena": SIZE, "response": SIZE}
