"""Calling other models: the parts of `triton_python_backend_utils` behind `InferenceRequest.exec`."""

import asyncio
import contextlib
import json
from collections.abc import Sequence
from queue import SimpleQueue
from typing import NamedTuple

from broker.messages import COMPLETE, ErrorCode, Infer, Item, Part, Response
from shm.arena import ArenaFull
from workers.calls import Reply, Take
from workers.pb_errors import TritonError
from workers.pb_responses import InferenceResponse
from workers.pb_server import server
from workers.pb_tensor import Tensor

TRITONSERVER_MEMORY_CPU = 0
TRITONSERVER_MEMORY_GPU = 1

_ENDPOINT = "BLS"


class PreferredMemory:
    """Where the outputs of a call should lie; a wish that only Triton itself follows."""

    def __init__(self, preferred_memory_type: int, preferred_device_id: int = 0) -> None:
        """The type is one of TRITONSERVER_MEMORY_*."""
        self._type = preferred_memory_type
        self._device_id = preferred_device_id


class InferenceTrace:
    """The trace that a request belongs to; given to a call, the call's spans join it."""

    def __init__(self, context: str = "") -> None:
        """`context` is JSON with `traceparent` and `tracestate`."""
        self._context = context

    def get_context(self) -> str | None:
        """The W3C trace context as JSON, None when the request is not traced."""
        return self._context or None

    def headers(self) -> tuple[str, str]:
        """`traceparent` and `tracestate`, empty when the request is not traced."""
        context = json.loads(self._context) if self._context else {}
        return context.get("traceparent", ""), context.get("tracestate", "")


class Call(NamedTuple):
    """Which model is called."""

    model: str
    version: int
    trace: InferenceTrace

    def request(self, item: Item) -> Infer:
        """The message of a call, still without its inputs."""
        traceparent, tracestate = self.trace.headers()
        return Infer(
            request=0,
            model=self.model,
            version=self.version,
            request_id=item.request_id,
            inputs=(),
            outputs=item.outputs,
            parameters=item.parameters,
            correlation_id=item.correlation_id,
            flags=item.flags,
            priority=0,
            timeout_us=item.timeout_us,
            is_raw=False,
            received=0.0,
            endpoint=_ENDPOINT,
            traceparent=traceparent,
            tracestate=tracestate,
        )

    def wait(self, request: Infer, inputs: Sequence[Tensor]) -> InferenceResponse:
        """The one response."""
        replies: SimpleQueue[Reply] = SimpleQueue()
        self._send(request, inputs, replies.put)
        return _response(replies.get())

    def wait_async(self, request: Infer, inputs: Sequence[Tensor]) -> "asyncio.Future[InferenceResponse]":
        """The one response, to await."""
        loop = asyncio.get_running_loop()
        calls = server.calls
        future: asyncio.Future[InferenceResponse] = loop.create_future()

        def settle(reply: Reply) -> None:
            if not future.done():
                future.set_result(_response(reply))

        def take(reply: Reply) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(settle, reply)

        number = self._send(request, inputs, take)
        future.add_done_callback(lambda done: calls.abandon(number) if done.cancelled() else None)
        return future

    def iterate(self, request: Infer, inputs: Sequence[Tensor]) -> "ResponseIterator":
        """All responses, as they come."""
        replies: SimpleQueue[Reply] = SimpleQueue()
        return ResponseIterator(self._send(request._replace(endpoint=""), inputs, replies.put), replies)

    def iterate_async(self, request: Infer, inputs: Sequence[Tensor]) -> "asyncio.Future[ResponseIterator]":
        """All responses; the iterator itself does not wait."""
        future: asyncio.Future[ResponseIterator] = asyncio.get_running_loop().create_future()
        future.set_result(self.iterate(request, inputs))
        return future

    def _send(self, request: Infer, inputs: Sequence[Tensor], take: Take) -> int:
        calls = server.calls
        outputs = [tensor.output() for tensor in inputs]
        try:
            return calls.infer(request, outputs, take)
        except ArenaFull as error:
            take(Reply(Response(0, ErrorCode.UNAVAILABLE, str(error), self.model, self.version, (), {}), ()))
            return 0


class ResponseIterator:
    """The responses to a call, in order. A second iteration gives them again."""

    def __init__(self, number: int, replies: "SimpleQueue[Reply]") -> None:
        """Models get it from `exec(decoupled=True)`."""
        self._number = number
        self._replies = replies
        self._received: list[InferenceResponse] = []
        self._position = 0
        self._is_complete = False

    def __iter__(self) -> "ResponseIterator":
        """From the first response on."""
        self._position = 0
        return self

    def __next__(self) -> InferenceResponse:
        """The next response, as soon as it is there; the last one is empty if the model ended without another."""
        if self._position == len(self._received):
            if self._is_complete:
                raise StopIteration
            reply = self._replies.get()
            self._is_complete = bool(reply.response.part & Part.FINAL)
            if not self._is_complete:
                server.calls.consumed(self._number)
            self._received.append(_response(reply))
        self._position += 1
        return self._received[self._position - 1]

    def cancel(self) -> None:
        """Tell the called model that no more responses are wanted; those that come are still iterated."""
        server.calls.cancel(self._number)

    def __del__(self) -> None:
        """What nobody can take any more need not be sent."""
        if not self._is_complete and server.is_serving:
            server.calls.abandon(self._number)


def _response(reply: Reply) -> InferenceResponse:
    response = reply.response
    if response.code != ErrorCode.OK:
        return InferenceResponse([], _error(response))
    tensors = [
        Tensor.over(ref.name, ref.datatype, ref.shape, data)
        for ref, data in zip(response.outputs, reply.data, strict=True)
    ]
    return InferenceResponse(tensors, None, response.parameters)


def _error(response: Response) -> TritonError:
    """A failed execution in the called model's own words; what was refused at once in those of the caller's."""
    if response.part == COMPLETE:
        return TritonError(response.error, response.code)
    model, reason = response.model, response.error
    if reason.startswith(f"{_ENDPOINT} "):
        reason = (
            f"Model {model} is using the decoupled. The current BLS request call doesn't support models using the "
            "decoupled transaction policy. Please use 'decoupled=True' argument to the 'exec' or 'async_exec' calls "
            "for decoupled models.'"
        )
    elif reason.startswith("Request for unknown model: "):
        reason = f"Failed for execute the inference request. Model '{model}' is not ready."
    return TritonError(f"Model {model} - Error when running inference: {reason}")
