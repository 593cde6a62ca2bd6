"""Request parameters: which names are reserved and what they mean; how values look is each protocol's own matter."""

from collections.abc import Iterable
from typing import NamedTuple, Protocol, TypeVar

from broker.messages import ErrorCode, Parameters
from frontends.errors import RequestError

SEQUENCE_START = 1
SEQUENCE_END = 2
"""Bits of `Infer.flags`."""
MAX_STRING_ID = 128

Value_contra = TypeVar("Value_contra", contravariant=True)


class RequestParameters(NamedTuple):
    """What the parameters of a request say; `custom` are those that only the model understands."""

    custom: Parameters
    correlation_id: int | str
    flags: int
    priority: int
    timeout_us: int


class Reader(Protocol[Value_contra]):
    """Turns a protocol's parameter values into ours. Every method raises RequestError for a value of the wrong type."""

    reserved: str
    """What a client is told about a name that begins with `triton_`."""

    def correlation_id(self, name: str, value: Value_contra) -> int | str:
        """An unsigned number or a string."""

    def flag(self, name: str, value: Value_contra) -> bool:
        """Yes or no."""

    def priority(self, name: str, value: Value_contra) -> int:
        """An unsigned number."""

    def timeout(self, name: str, value: Value_contra) -> int:
        """Microseconds, unsigned."""

    def custom(self, name: str, value: Value_contra) -> str | int | float | bool:
        """A value for the model."""


NO_PARAMETERS = RequestParameters({}, 0, 0, 0, 0)


def read(members: Iterable[tuple[str, Value_contra]], reader: Reader[Value_contra]) -> RequestParameters:
    """Sort a request's parameters by meaning, in their order. Raises RequestError for the first that is wrong."""
    custom: Parameters = {}
    correlation_id: int | str = 0
    flags = priority = timeout_us = 0
    for name, value in members:
        if name == "sequence_id":
            correlation_id = _bounded(reader.correlation_id(name, value))
        elif name == "sequence_start":
            flags |= SEQUENCE_START * reader.flag(name, value)
        elif name == "sequence_end":
            flags |= SEQUENCE_END * reader.flag(name, value)
        elif name == "priority":
            priority = reader.priority(name, value)
        elif name == "timeout":
            timeout_us = reader.timeout(name, value)
        elif name.startswith("triton_"):
            raise RequestError(ErrorCode.INVALID_ARG, reader.reserved)
        else:
            custom[name] = reader.custom(name, value)
    return RequestParameters(custom, correlation_id, flags, priority, timeout_us)


def _bounded(correlation_id: int | str) -> int | str:
    if isinstance(correlation_id, str) and len(correlation_id.encode()) > MAX_STRING_ID:
        raise RequestError(
            ErrorCode.UNSUPPORTED, f"string correlation ID cannot be longer than {MAX_STRING_ID} characters"
        )
    return correlation_id
