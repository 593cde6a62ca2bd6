"""The broker's side of `broker.client.Client` played in memory: blocks are numbers, responses are what a test says."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from broker.messages import Answer, Directory, ErrorCode, Infer, Message, Part, Response
from frontends.forwarding import Forwarding
from frontends.grpc.service import Service
from frontends.labels import LabelSource
from shm.arena import ArenaFull
from shm.ref import TensorRef

UNKNOWN = "Request for unknown model: 'm' is not found"


class MemoryClient:
    """What frontends use of the client.

    `infer` answers with `response`; `stream` with what is put into the queue `responses[request id]`, up to the final
    one. `known` false makes every question fail; else `content` is the answer to each. `room` is how many blocks there
    are.
    """

    def __init__(
        self, response: Response | None = None, *, known: bool = True, room: int = 10_000, content: Any = None
    ) -> None:
        self.response = response
        self.known = known
        self.room = room
        self.content = content
        self.directory = Directory({}, {}, ("decoupled",))
        self.responses: dict[str, asyncio.Queue[Response]] = {}
        self.sent: list[Infer] = []
        self.cancelled: list[str] = []
        self.asked: list[Message] = []
        self.blocks: list[int] = []
        self.lent: list[int] = []
        self.released: list[int] = []
        self.done: list[TensorRef] = []
        self.regions = self

    def number(self) -> int:
        return 7

    async def store(
        self, _model: str, name: str, datatype: str, shape: tuple[int, ...], data: Any, blocks: list[int]
    ) -> TensorRef:
        if len(self.blocks) == self.room:
            raise ArenaFull("no room for 4 bytes", is_final=False)
        self.blocks.append(len(self.blocks))
        blocks.append(self.blocks[-1])
        await asyncio.sleep(0)
        return TensorRef(name, datatype, shape, len(data), bytes(data))

    async def infer(self, request: Infer, blocks: list[int]) -> Response:
        self.sent.append(request)
        self.lent += blocks
        assert self.response is not None
        return self.response

    async def stream(self, request: Infer, blocks: list[int]) -> AsyncGenerator[Response, None]:
        self.sent.append(request)
        self.lent += blocks
        is_final = False
        try:
            while not is_final:
                response = await self.queue(request.request_id).get()
                is_final = bool(response.part & Part.FINAL)
                yield response
        finally:
            if not is_final:
                self.cancelled.append(request.request_id)

    def queue(self, request_id: str) -> asyncio.Queue[Response]:
        return self.responses.setdefault(request_id, asyncio.Queue())

    async def ask(self, question: Message, number: int) -> Answer:
        self.asked.append(question)
        content = self.content(question) if callable(self.content) else self.content
        return Answer(number, *((ErrorCode.OK, "", content) if self.known else (ErrorCode.NOT_FOUND, UNKNOWN, None)))

    def release(self, blocks: list[int]) -> None:
        self.released += blocks

    def view(self, ref: TensorRef) -> bytes:
        if ref.data is None:
            raise KeyError(ref.region)
        return ref.data

    def done_with(self, outputs: tuple[TensorRef, ...]) -> None:
        self.done += outputs


def service_of(client: Any, forward_pattern: str = "", allows_client_memory: bool = True) -> Service:
    """A service on such a client."""
    return Service(client, "name", "1.2", LabelSource(client), Forwarding(forward_pattern), allows_client_memory)
