"""Requests, responses and response senders of `triton_python_backend_utils`."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

from broker.messages import ErrorCode, Item
from workers.errors import BackendError
from workers.inputs import Inputs
from workers.outcome import Outcome, Response
from workers.pb_errors import TritonError, TritonModelException, check_text
from workers.pb_tensor import Tensor
from workers.streams import SendRefused, Stream, Streams

TRITONSERVER_RESPONSE_COMPLETE_FINAL = 1


def _not_available(what: str) -> NoReturn:
    raise TritonModelException(f"{what}: not available in this server")


class Batch(NamedTuple):
    """Where the streams of one batch's requests are opened."""

    streams: Streams
    attempt: int
    is_decoupled: bool


class InferenceRequest:
    """One request of a batch."""

    __slots__ = ("_batch", "_flags", "_index", "_inputs", "_item", "_output_names", "_sender", "_stream")
    _item: Item
    _flags: int
    _inputs: list[Tensor]
    _output_names: frozenset[str]
    _batch: Batch
    _index: int
    _stream: Stream | None
    _sender: "InferenceResponseSender | None"

    def __init__(self, *args: object, **kwargs: object) -> None:
        """Models receive requests; to make one is to call another model."""
        _not_available("calling other models (BLS)")

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
        request._stream = None
        request._sender = None
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
        self._flags = flags

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
            streams, attempt, is_decoupled = self._batch
            self._stream = streams.open(attempt, self._index, self._item, is_decoupled)
        return self._stream

    def exec(self, *args: object, **kwargs: object) -> NoReturn:
        """Refused."""
        _not_available("calling other models (BLS)")

    def async_exec(self, *args: object, **kwargs: object) -> NoReturn:
        """Refused."""
        _not_available("calling other models (BLS)")

    def set_release_flags(self, flags: int) -> NoReturn:
        """Refused."""
        _not_available("iterative sequences")

    def trace(self) -> NoReturn:
        """Refused."""
        _not_available("tracing")


class InferenceResponse:
    """The answer to one request: output tensors, or an error."""

    __slots__ = ("_error", "_parameters", "_tensors")

    def __init__(
        self,
        output_tensors: Sequence[Tensor] = (),
        error: TritonError | None = None,
        parameters: dict[str, Any] | None = None,
    ) -> None:
        """With an error the tensors do not matter. Raises TypeError, TritonModelException."""
        for tensor in output_tensors:
            if tensor is None:
                raise TritonModelException("Output tensor for inference response should not be empty.")
            if not isinstance(tensor, Tensor):
                raise TypeError(f"an output tensor must be a pb_utils.Tensor, not a {type(tensor).__name__}")
        for key, value in (parameters or {}).items():
            _check_parameter(key, value)
        self._tensors = list(output_tensors)
        self._error = error
        self._parameters = parameters or {}

    def output_tensors(self) -> list[Tensor]:
        """The outputs."""
        return self._tensors

    def has_error(self) -> bool:
        """True for an error."""
        return self._error is not None

    def error(self) -> TritonError | None:
        """The error, if it is one."""
        return self._error

    def parameters(self) -> str:
        """The response parameters as JSON text."""
        return json.dumps(self._parameters)

    def outcome(self) -> Outcome:
        """What the worker sends of it."""
        if self._error is not None:
            return BackendError(ErrorCode(self._error.code()), self._error.message())
        by_name = {tensor.name(): tensor for tensor in self._tensors}  # the last of a name counts
        return Response([tensor.output() for tensor in by_name.values()], self._parameters)


class InferenceResponseSender:
    """Sends responses to one request, from any thread."""

    __slots__ = ("_stream",)

    def __init__(self, stream: Stream) -> None:
        """Models get it from their request."""
        self._stream = stream

    def send(self, response: InferenceResponse | None = None, flags: int = 0) -> None:
        """Send a response, the end (TRITONSERVER_RESPONSE_COMPLETE_FINAL), or both.

        Waits while the client reads more slowly than the model sends. A response to a client that has gone is dropped.
        Raises TritonModelException.
        """
        if flags not in (0, TRITONSERVER_RESPONSE_COMPLETE_FINAL):
            raise TritonModelException("Unable to send response. Unsupported flag provided.")
        if response is None and not flags:
            raise TritonModelException(
                "Inference Response object must be provided when the response flags is set to zero."
            )
        if response is not None and not isinstance(response, InferenceResponse):
            raise TypeError(f"a response must be a pb_utils.InferenceResponse, not a {type(response).__name__}")
        outcome = None if response is None else response.outcome()
        try:
            self._stream.send(outcome, bool(flags))
        except SendRefused as error:
            raise TritonModelException(str(error)) from None

    def is_cancelled(self) -> bool:
        """Whether the client has gone."""
        return self._stream.is_cancelled

    def __del__(self) -> None:
        """Nobody can send the end any more: that must not leave the client waiting."""
        self._stream.drop()


def _check_parameter(key: object, value: object) -> None:
    """Raise for what a response cannot carry."""
    if not isinstance(key, str):
        raise TypeError(f"the name of a response parameter must be a str, not {type(key)}")
    if not isinstance(value, bool | int | str):
        raise TritonModelException(f"Expect parameters values to have type bool/int/str, found type {type(value)}")
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        raise TritonModelException(f"response parameter '{key}' does not fit into 64 bits")
    for text in (key, value):
        if isinstance(text, str):
            check_text(text)
