"""The one error of this package: what clients and operators read, with its code."""

from broker.messages import ErrorCode


class BackendError(Exception):
    """A model cannot be loaded, a batch cannot be executed, or (as an outcome) a single request cannot."""

    def __init__(self, code: ErrorCode, text: str) -> None:
        """`text` is what the client or the operator reads."""
        super().__init__(printable(text))
        self.code = code


class MalformedInput(BackendError):
    """The content of one input of one request is wrong, as Triton finds before a model sees the request."""

    def __init__(self, input_name: str, what: str, details: str) -> None:
        """What is wrong, and how: the place goes between them."""
        super().__init__(ErrorCode.INVALID_ARG, f"{what} for inference input '{input_name}'{details}")
        self._start = f"{what} for inference input '{input_name}'"
        self._details = details

    def of(self, model: str, request_id: str) -> str:
        """The error with the model and the request that it is about."""
        return printable(
            f"[request id: {request_id or '<id_unknown>'}] {self._start} for model '{model}'{self._details}"
        )


def printable(text: str) -> str:
    """Text that can travel: Python's strings may hold lone surrogates (of odd file names), UTF-8 may not."""
    return text.encode(errors="replace").decode()
