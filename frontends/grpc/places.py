"""Where in a client's shared memory a tensor lies: the parameters `shared_memory_region`, `_offset`, `_byte_size`."""

from typing import NamedTuple

from broker.messages import ErrorCode
from frontends.errors import RequestError
from frontends.grpc.messages import ProtoMessage

REGION = "shared_memory_region"
OFFSET = "shared_memory_offset"
BYTE_SIZE = "shared_memory_byte_size"

_UINT64 = 2**64 - 1


class Place(NamedTuple):
    """`byte_size` bytes at `offset` of a region that a client has registered."""

    region: str
    offset: int
    byte_size: int


def read_place(tensor: ProtoMessage) -> Place | None:
    """Where an input lies, or where an output is to go; None when that is the message. Raises RequestError."""
    parameters = tensor.parameters
    if REGION not in parameters:
        for name in (OFFSET, BYTE_SIZE):
            if name in parameters:
                raise _invalid(f"'{name}' can not be specified without '{REGION}' parameter for tensor '{tensor.name}'")
        return None
    region = _value(tensor, REGION, "string_param")
    offset = _value(tensor, OFFSET, "int64_param") if OFFSET in parameters else 0
    if BYTE_SIZE not in parameters:
        raise _invalid(f"'{BYTE_SIZE}' must be specified along with '{REGION}' parameter for tensor '{tensor.name}'")
    # Negative numbers are huge unsigned ones, beyond any region.
    return Place(region, offset & _UINT64, _value(tensor, BYTE_SIZE, "int64_param") & _UINT64)


def _value(tensor: ProtoMessage, name: str, field: str) -> ProtoMessage:
    parameter = tensor.parameters[name]
    if parameter.WhichOneof("parameter_choice") != field:
        raise _invalid(f"invalid value type for '{name}' parameter for tensor '{tensor.name}', expected {field}.")
    return getattr(parameter, field)


def _invalid(text: str) -> RequestError:
    return RequestError(ErrorCode.INVALID_ARG, text)
