"""Responses and response senders of `triton_python_backend_utils`."""

import json
from collections.abc import Sequence
from typing import Any

from broker.messages import ErrorCode
from workers.errors import BackendError
from workers.outcome import Outcome, Response
from workers.pb_errors import TritonError, TritonModelException, check_text
from workers.pb_tensor import Tensor
from workers.streams import SendRefused, Stream

TRITONSERVER_RESPONSE_COMPLETE_FINAL = 1


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
            check_parameter(key, value)
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


def check_parameter(key: object, value: object) -> None:
    """Raise for what a request or response cannot carry."""
    if not isinstance(key, str):
        raise TypeError(f"the name of a parameter must be a str, not {type(key)}")
    if not isinstance(value, bool | int | str):
        raise TritonModelException(f"Expect parameters values to have type bool/int/str, found type {type(value)}")
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        raise TritonModelException(f"parameter '{key}' does not fit into 64 bits")
    for text in (key, value):
        if isinstance(text, str):
            check_text(text)
