"""ModelStreamInfer: any number of requests on one stream, and any number of responses to each of them."""

import asyncio
import time
from collections.abc import AsyncIterable, Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from broker.messages import ErrorCode, Part, Response
from frontends.errors import RequestError
from frontends.grpc.messages import ProtoMessage, message
from frontends.grpc.requests import Inference, Metadata, prepare
from frontends.grpc.responses import answer_with
from frontends.grpc.service import Service
from frontends.grpc.wire import join_stream_response, split_request

MAX_IN_FLIGHT = 1024
"""Requests of one stream that are under way; at the limit no more are read, and flow control holds the client."""
FINAL_RESPONSE = "triton_final_response"
STRICT = "triton_grpc_error"
"""The metadata with which a client asks for the first response that is an error to end the stream with its status."""

_ModelStreamInferResponse = message("inference.ModelStreamInferResponse")


Write: TypeAlias = Callable[[bytes], Awaitable[None]]
"""Sends a message to the client; done when there is room for another."""


class Streams:
    """The streams of a frontend."""

    def __init__(self, service: Service) -> None:
        """None is open."""
        self._service = service
        self._reading: set[asyncio.Task[None]] = set()

    async def serve(self, requests: AsyncIterable[bytes], write: Write, metadata: Metadata) -> None:
        """Serve one stream of ModelInferRequests in wire form, to its end. Raises RequestError.

        When the caller is cancelled, so are the requests that are under way.
        """
        stream = _Stream(self._service, write, metadata)
        try:
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(stream.read(requests, tasks))
                self._reading.add(reading)
                reading.add_done_callback(self._reading.discard)
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        if reading.cancelled():
            text = "GRPC server is shutting down and has stopped accepting new requests."
            raise RequestError(ErrorCode.UNAVAILABLE, text)

    def close(self) -> None:
        """Take no more requests from any stream; each one ends with an error when what is under way is answered."""
        for reading in self._reading:
            reading.cancel()


class _Turn(NamedTuple):
    """The place of a request's responses in the stream: after `previous`, before whoever waits for `done`."""

    previous: asyncio.Event
    done: asyncio.Event


class _Stream:
    def __init__(self, service: Service, write: Write, metadata: Metadata) -> None:
        self._service = service
        self._send = write
        self._metadata = metadata
        self._is_strict = metadata.get(STRICT) == "true"
        self._room = asyncio.Semaphore(MAX_IN_FLIGHT)
        self._writing = asyncio.Lock()
        self._last = asyncio.Event()  # of those that are answered in order
        self._last.set()

    async def read(self, requests: AsyncIterable[bytes], tasks: asyncio.TaskGroup) -> None:
        """Take the client's requests in order, and have each answered by a task of its own.

        A message that is no request ends the stream, since nobody knows whose response its error would be.
        """
        async for data in requests:
            await self._room.acquire()
            request, raw = split_request(data)
            try:
                inference: Inference | RequestError = await prepare(self._service, request, raw, self._metadata)
            except RequestError as error:
                inference = error
            answering = tasks.create_task(self._answer(request, inference, self._turn(request.model_name)))
            answering.add_done_callback(partial(self._forget, inference))

    def _turn(self, model: str) -> _Turn:
        """Responses have the order of the requests, except those of decoupled models, which come as they are made."""
        if model in self._service.client.directory.decoupled:
            immediately = asyncio.Event()
            immediately.set()
            return _Turn(immediately, asyncio.Event())
        turn = _Turn(self._last, asyncio.Event())
        self._last = turn.done
        return turn

    async def _answer(self, request: ProtoMessage, inference: Inference | RequestError, turn: _Turn) -> None:
        try:
            if isinstance(inference, RequestError):
                await self._write(turn, refusal(request, inference.message))
            else:
                await self._relay(request, inference, turn)
        finally:
            turn.done.set()

    async def _relay(self, request: ProtoMessage, inference: Inference, turn: _Turn) -> None:
        """Write every response of a request. The next is asked for when the client has room for it."""
        blocks = inference.blocks.copy()
        inference.blocks.clear()
        async with aclosing(self._service.client.stream(inference.infer, blocks)) as responses:
            async for response in responses:
                try:
                    await turn.previous.wait()
                    data = await self._encoded(request, inference, response)
                finally:
                    self._service.client.done_with(response.outputs)
                began = time.monotonic_ns()
                if data:
                    await self._write(turn, data)
                if response.part & Part.TRACED:
                    self._service.client.delivered(response, began)

    async def _encoded(self, request: ProtoMessage, inference: Inference, response: Response) -> bytes:
        """A response as the client is to get it, empty for none. Raises RequestError when that ends the stream."""
        is_final = bool(response.part & Part.FINAL)
        if not response.part & Part.CONTENT:
            if response.code != ErrorCode.OK:
                return refusal(request, response.error)
            return empty_final_response(request) if inference.enables_empty_final else b""
        try:
            answer = await answer_with(self._service, request.id, response, inference.classes)
            answer.message.parameters[FINAL_RESPONSE].bool_param = is_final
            return join_stream_response(*answer)
        except RequestError as error:
            if self._is_strict:
                raise
            return failure(request, error.message, is_final)

    async def _write(self, turn: _Turn, data: bytes) -> None:
        await turn.previous.wait()
        async with self._writing:
            await self._send(data)

    def _forget(self, inference: Inference | RequestError, _answering: asyncio.Task[None]) -> None:
        """A request is answered, or its task was cancelled, perhaps before it took the blocks."""
        self._room.release()
        if isinstance(inference, Inference):
            self._service.client.release(inference.blocks)


def refusal(request: ProtoMessage, error: str) -> bytes:
    """The answer to a request that never came to its model."""
    return _serialized(error, id=request.id)


def failure(request: ProtoMessage, error: str, is_final: bool) -> bytes:
    """A response that is an error."""
    parameters = {FINAL_RESPONSE: {"bool_param": is_final}}
    return _serialized(
        error, model_name=request.model_name, model_version=request.model_version, id=request.id, parameters=parameters
    )


def empty_final_response(request: ProtoMessage) -> bytes:
    """The end of a request's responses, where the last one did not say that it was the last."""
    return failure(request, "", is_final=True)


def _serialized(error: str, **fields: Any) -> bytes:
    serialized: bytes = _ModelStreamInferResponse(error_message=error, infer_response=fields).SerializeToString()
    return serialized
