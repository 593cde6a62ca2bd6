"""Requests and responses on the wire, without passing tensor bytes through protobuf objects.

Protobuf copies a `bytes` field when it parses it, again when it is read, set, and serialised. The raw contents are
top-level fields, so they are cut out of the request before the rest is parsed, and put behind the serialised rest of
the response: concatenated messages of one type are their merge.
"""

from collections.abc import Sequence

from broker.messages import ErrorCode
from frontends.errors import RequestError
from frontends.grpc.messages import ProtoMessage, message, parse
from shm import copies
from shm.arena import Buffer

MAX_RESPONSE = 2**31 - 1
"""Bytes of the longest message that gRPC can carry."""

_LENGTH_DELIMITED = 2  # a wire type
_RAW_INPUT_CONTENTS = 7 << 3 | _LENGTH_DELIMITED
_RAW_OUTPUT_CONTENTS = 6 << 3 | _LENGTH_DELIMITED
_INFER_RESPONSE = 2 << 3 | _LENGTH_DELIMITED
_MAX_SHIFT = 63  # a varint has ten bytes at most

_Request = message("inference.ModelInferRequest")


def split_request(data: bytes) -> tuple[ProtoMessage, Sequence[Buffer]]:
    """A ModelInferRequest without its raw_input_contents, and these, where they lie in `data`. Raises RequestError."""
    try:
        rest, raw = _cut(data)
        return parse(_Request, rest), raw
    except (_UnusualError, IndexError):
        request = parse(_Request, data)
        return request, request.raw_input_contents


def join_response(response: ProtoMessage, raw: Sequence[Buffer]) -> bytes:
    """The wire form of a ModelInferResponse with these raw_output_contents. Raises RequestError when it is too long."""
    return b"".join(_parts(response, raw, b""))


def join_stream_response(response: ProtoMessage, raw: Sequence[Buffer]) -> bytes:
    """The wire form of a ModelStreamInferResponse with such an infer_response. Raises RequestError."""
    return b"".join(_parts(response, raw, _varint(_INFER_RESPONSE)))


def _parts(response: ProtoMessage, raw: Sequence[Buffer], tag: bytes) -> list[Buffer]:
    """The pieces of a ModelInferResponse; with a tag before it the message is a field of another one."""
    parts: list[Buffer] = [response.SerializeToString()]
    for contents in raw:
        parts.append(_varint(_RAW_OUTPUT_CONTENTS) + _varint(len(contents)))
        parts.append(contents)
    size = sum(map(len, parts))
    if tag:
        parts.insert(0, tag + _varint(size))
        size += len(parts[0])
    if size > MAX_RESPONSE:
        raise RequestError(
            ErrorCode.INVALID_ARG, f"Response has byte size {size} which exceeds gRPC's byte size limit {MAX_RESPONSE}."
        )
    copies.count("response", sum(map(len, raw)))
    return parts


class _UnusualError(ValueError):
    """The message is malformed, or has unknown fields: it is left to protobuf."""


def _cut(data: bytes) -> tuple[bytes, list[memoryview]]:
    """A request's bytes without its raw contents, and the raw contents."""
    view = memoryview(data)
    raw: list[memoryview] = []
    kept: list[memoryview] = []
    position = kept_from = 0
    while position < len(data):
        begin = position
        tag, position = _read_varint(data, position)
        if tag & 7 != _LENGTH_DELIMITED:
            raise _UnusualError
        length, position = _read_varint(data, position)
        end = position + length
        if tag == _RAW_INPUT_CONTENTS:
            kept.append(view[kept_from:begin])
            kept_from = end
            raw.append(view[position:end])
        position = end
    if position != len(data):
        raise _UnusualError
    if not raw:
        return data, raw
    kept.append(view[kept_from:])
    return b"".join(kept), raw


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    """The number at `position`, and the position behind it."""
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > _MAX_SHIFT:
            raise _UnusualError


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
