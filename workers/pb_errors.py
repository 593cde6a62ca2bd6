"""The errors of `triton_python_backend_utils`."""

from operator import index
from typing import SupportsIndex

from broker.messages import ErrorCode


class TritonModelException(Exception):
    """Whatever the backend, not the model, finds wrong."""


class TritonError:
    """The error of one request: a text for its client and a code."""

    UNKNOWN = int(ErrorCode.UNKNOWN)
    INTERNAL = int(ErrorCode.INTERNAL)
    NOT_FOUND = int(ErrorCode.NOT_FOUND)
    INVALID_ARG = int(ErrorCode.INVALID_ARG)
    UNAVAILABLE = int(ErrorCode.UNAVAILABLE)
    UNSUPPORTED = int(ErrorCode.UNSUPPORTED)
    ALREADY_EXISTS = int(ErrorCode.ALREADY_EXISTS)
    CANCELLED = int(ErrorCode.CANCELLED)

    def __init__(self, message: str, code: int = INTERNAL) -> None:
        """`code` is one of this class's."""
        self._message = str(message)
        self._code = ErrorCode(code)

    def message(self) -> str:
        """The text."""
        return self._message

    def code(self) -> int:
        """The code."""
        return int(self._code)


def check_text(text: object) -> None:
    """Raise TypeError for what is no string, TritonModelException for one that UTF-8 cannot carry."""
    if not isinstance(text, str):
        raise TypeError(f"expected a str, got a {type(text).__name__}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TritonModelException(f"{text!r} is not text: {error.reason}") from None


def check_integer(name: str, value: SupportsIndex) -> int:
    """An integer that travels in 64 bits. Raises TypeError, TritonModelException."""
    number = index(value)
    if not -(1 << 63) <= number < 1 << 64:
        raise TritonModelException(f"{name} {number} does not fit into 64 bits")
    return number
