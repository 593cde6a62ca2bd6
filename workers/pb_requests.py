"""Requests, responses and response senders of `triton_python_backend_utils`."""

import json
from asyncio import Future
from collections.abc import Sequence
from typing import Any, NamedTuple

from broker.messages import TENSORS, Infer, Item
from workers.errors import BackendError
from workers.inputs import Inputs
from workers.outcome import AGAIN, Again, Outcome
from workers.pb_calls import Call, InferenceTrace, PreferredMemory, ResponseIterator
from workers.pb_errors import TritonModelException, check_integer, check_text
from workers.pb_responses import InferenceResponse, InferenceResponseSender, check_parameter
from workers.pb_tensor import Tensor
from workers.streams import Stream, Streams

TRITONSERVER_REQUEST_RELEASE_ALL = 1
TRITONSERVER_REQUEST_RELEASE_RESCHEDULE = 2


class Batch(NamedTuple):
    """Where the streams of one batch's requests are opened."""

    streams: Streams
    attempt: int
    is_decoupled: bool
    is_iterative: bool = False  # requests may be executed once more


class InferenceRequest:
    """One request of a batch, or one that a model makes to call another model."""

    __slots__ = (
        "_batch",
        "_call",
        "_flags",
        "_index",
        "_inputs",
        "_item",
        "_output_names",
        "_release_flags",
        "_sender",
        "_stream",
    )
    _item: Item
    _flags: int
    _inputs: list[Tensor]
    _output_names: frozenset[str]
    _release_flags: int
    _batch: Batch | None  # of a received request
    _index: int
    _stream: Stream | None
    _sender: InferenceResponseSender | None
    _call: Call | None  # of a request that the model has made

    def __init__(  # noqa: PLR0913  as in Triton
        self,
        *,
        inputs: Sequence[Tensor],
        requested_output_names: Sequence[str],
        model_name: str,
        model_version: int = -1,
        request_id: str = "",
        correlation_id: int | str = 0,
        flags: int = 0,
        timeout: int = 0,
        preferred_memory: PreferredMemory | None = None,
        trace: InferenceTrace | None = None,
        parameters: dict[str, Any] | None = None,
    ) -> None:
        """A request to another model; no output names ask for all outputs, version -1 for the newest that is ready.

        `timeout` is in microseconds. Raises TypeError, TritonModelException.
        """
        del preferred_memory  # outputs are where the called model has put them
        if any(name == "" for name in requested_output_names):
            raise TritonModelException("The name of a requested output cannot be an empty string.")
        if isinstance(correlation_id, bool) or not isinstance(correlation_id, int | str):
            raise TritonModelException(f"Correlation ID must be an integer or string, not {type(correlation_id)}")
        if isinstance(correlation_id, int):
            check_integer("correlation_id", correlation_id)
        for tensor in inputs:
            if not isinstance(tensor, Tensor):
                raise TypeError(f"an input must be a pb_utils.Tensor, not a {type(tensor).__name__}")
        for text in (request_id, model_name, *requested_output_names, str(correlation_id)):
            check_text(text)
        for key, value in (parameters or {}).items():
            check_parameter(key, value)
        names = tuple(requested_output_names)
        self._item = Item(
            request_id,
            (),
            names,
            dict(parameters or {}),
            correlation_id,
            0,
            0,
            check_integer("timeout", timeout),
            "",
        )
        self._flags = check_integer("flags", flags)
        self._inputs = list(inputs)
        self._output_names = frozenset(names)
        self._batch = self._stream = self._sender = None
        self._release_flags = TRITONSERVER_REQUEST_RELEASE_ALL
        self._call = Call(model_name, check_integer("model_version", model_version), trace or InferenceTrace())

    @classmethod
    def received(
        cls, item: Item, inputs: Inputs, output_names: frozenset[str], batch: Batch, index: int
    ) -> "InferenceRequest":
        """A client's request, at `index` of its batch; `output_names` are all that the model has.

        Raises BackendError.
        """
        request = cls.__new__(cls)
        request._item = item
        request._flags = item.flags
        request._inputs = [Tensor.received(ref, inputs) for ref in item.inputs]
        request._output_names = output_names
        request._batch = batch
        request._index = index
        request._release_flags = TRITONSERVER_REQUEST_RELEASE_ALL
        request._stream = None
        request._sender = None
        request._call = None
        return request

    def inputs(self) -> list[Tensor]:
        """The inputs that the client sent."""
        return self._inputs

    def requested_output_names(self) -> set[str]:
        """The outputs that the client wants."""
        return set(self._item.outputs or self._output_names)

    def request_id(self) -> str:
        """The client's name for the request."""
        return self._item.request_id

    def correlation_id(self) -> int | str:
        """The sequence that it belongs to; 0 for none."""
        return self._item.correlation_id

    def flags(self) -> int:
        """TRITONSERVER_REQUEST_FLAG_*."""
        return self._flags

    def set_flags(self, flags: int) -> None:
        """Change the flags."""
        self._flags = check_integer("flags", flags)

    def timeout(self) -> int:
        """The client's timeout in microseconds, 0 for none."""
        return self._item.timeout_us

    def parameters(self) -> str:
        """The custom parameters as JSON text."""
        return json.dumps(self._item.parameters) if self._item.parameters else "{}"

    def is_cancelled(self) -> bool:
        """Whether the client has gone, by cancelling or by closing its connection."""
        return self._opened().is_cancelled

    def get_response_sender(self) -> "InferenceResponseSender":
        """What sends responses to this request, during `execute` and afterwards; the same each time."""
        if self._sender is None:
            self._sender = InferenceResponseSender(self._opened())
        return self._sender

    def fail(self, error: BackendError) -> Outcome | None:
        """Answer with an error what is not answered; None when the stream does that."""
        if self._stream is None:
            return error
        self._stream.fail(error)
        return None

    def answer(self, outcome: Outcome) -> Outcome | None:
        """Answer with what `execute` has returned; None when a response sender has answered already."""
        return outcome if self._stream is None or self._stream.withdraw() else None

    @property
    def has_sender(self) -> bool:
        """The model has asked for the response sender."""
        return self._sender is not None

    def _opened(self) -> Stream:
        if self._stream is None:
            if self._batch is None:
                raise TritonModelException("Only a request that the model has received has a client.")
            streams, attempt, is_decoupled, _ = self._batch
            self._stream = streams.open(attempt, self._index, self._item, is_decoupled)
        return self._stream

    def exec(self, decoupled: bool = False) -> InferenceResponse | ResponseIterator:
        """Call the model and wait for its response, which may be an error; `decoupled` gives an iterator at once.

        Raises TritonModelException where a model cannot be called.
        """
        call, request, inputs = self._called()
        return call.iterate(request, inputs) if decoupled else call.wait(request, inputs)

    def async_exec(self, decoupled: bool = False) -> "Future[InferenceResponse] | Future[ResponseIterator]":
        """The same for coroutines: await it. Raises RuntimeError where no event loop runs."""
        call, request, inputs = self._called()
        return call.iterate_async(request, inputs) if decoupled else call.wait_async(request, inputs)

    def _called(self) -> tuple[Call, Infer, list[Tensor]]:
        if self._call is None:
            raise TritonModelException("Only a request that the model has made can be executed.")
        return self._call, self._call.request(self._item._replace(flags=self._flags)), self._inputs

    def set_release_flags(self, flags: int) -> None:
        """How the request is let go of: TRITONSERVER_REQUEST_RELEASE_RESCHEDULE has it executed once more.

        Raises TritonModelException: only models with iterative sequences may ask for that.
        """
        if flags == TRITONSERVER_REQUEST_RELEASE_RESCHEDULE and not (self._batch and self._batch.is_iterative):
            raise TritonModelException(
                "Request is released with TRITONSERVER_REQUEST_RELEASE_RESCHEDULE, while the model is not configured "
                "to handle such a flag."
            )
        self._release_flags = check_integer("flags", flags)

    @property
    def is_rescheduled(self) -> bool:
        """The model wants it once more."""
        return self._release_flags == TRITONSERVER_REQUEST_RELEASE_RESCHEDULE

    def reschedule(self) -> Again | None:
        """Let go of a request that is to be executed once more; None when the model has sent its last response."""
        return AGAIN if self._stream is None or self._stream.leave() else None

    def trace(self) -> InferenceTrace:
        """The trace that the request belongs to."""
        if self._call is not None:
            return self._call.trace
        return InferenceTrace("" if self._item.trace == TENSORS else self._item.trace)
