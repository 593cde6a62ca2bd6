"""A tensor's values as JSON: a (nested) array of a request to binary form, binary form to an array of a response."""

import itertools
import struct
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import orjson

from broker.messages import ErrorCode
from frontends.errors import RequestError
from frontends.http.documents import MAX_NESTING, array, dump, dump_leniently, too_deep, unreadable
from shm.arena import Buffer
from shm.datatypes import ELEMENT_SIZE, element_count
from shm.tensor import NUMPY, deserialize_bytes

_WIDEST = {"b": np.dtype(np.bool_), "i": np.dtype(np.int64), "u": np.dtype(np.uint64), "f": np.dtype(np.float64)}
"""What values of each kind of number are first read as."""
_LENGTH = struct.Struct("<I")
"""What stands before a BYTES element."""


class _Rule(NamedTuple):
    """What JSON values a kind of datatype accepts: their Python types, and bounds for integers."""

    types: frozenset[type[Any]]
    refusal: str
    low: int = 0
    high: int = 0


_SIGNED = _Rule(frozenset({int}), "attempt to access JSON non-signed-integer as signed-integer", -(2**63), 2**63 - 1)
_UNSIGNED = _Rule(frozenset({int}), "attempt to access JSON non-unsigned-integer as unsigned-integer", 0, 2**64 - 1)
_FLOAT = _Rule(frozenset({int, float}), "attempt to access JSON non-number as double")
_BOOL = _Rule(frozenset({bool}), "attempt to access JSON non-boolean as boolean")
_RULES = {
    "BOOL": _BOOL,
    **dict.fromkeys(("UINT8", "UINT16", "UINT32", "UINT64"), _UNSIGNED),
    **dict.fromkeys(("INT8", "INT16", "INT32", "INT64"), _SIGNED),
    **dict.fromkeys(("FP32", "FP64"), _FLOAT),
}


def decode_values(name: str, datatype: str, shape: Sequence[int], data: Any, limit: int) -> Buffer:
    """The binary form of input `name`, whose `data` member is an array, nested or not. Raises RequestError.

    The number of BYTES elements is not checked here. `limit` bounds the size in bytes.
    """
    values = array(data, "data")
    if datatype in {"FP16", "BF16"}:
        raise _invalid(
            f"receiving {datatype} data via JSON is not supported. Please use the binary data format for input {name}"
        )
    if datatype == "BYTES":
        return _bounded(name, _join(_encoded_strings(_flatten(values))), limit)
    if datatype not in _RULES:
        raise _invalid(f"invalid datatype for input {name}")
    expected = element_count(shape)
    if expected * ELEMENT_SIZE[datatype] > limit:
        raise _too_large(name, expected * ELEMENT_SIZE[datatype], limit)
    values = _flatten(values)
    _check(values[:expected] if len(values) > expected else values, _RULES[datatype])
    if len(values) != expected:
        raise unreadable("data", "Shape does not match true shape of 'data' field")
    try:
        return _encode(NUMPY[datatype], values)
    except OverflowError:  # an integer beyond the largest double
        raise unreadable("data", "Number too big to be stored in double.") from None


def _flatten(values: list[Any]) -> list[Any]:
    for _ in range(MAX_NESTING):
        types = set(map(type, values))
        if list not in types:
            return values
        if types == {list}:
            values = list(itertools.chain.from_iterable(values))
        else:
            values = [inner for value in values for inner in (value if type(value) is list else (value,))]
    raise too_deep()


def _check(values: list[Any], rule: _Rule) -> None:
    if not rule.types.issuperset(map(type, values)):
        raise unreadable("data", rule.refusal)
    if rule.high and values and not rule.low <= min(values) <= max(values) <= rule.high:
        raise unreadable("data", rule.refusal)


def _encode(dtype: np.dtype[Any], values: list[Any]) -> Buffer:
    """Numbers that are too wide lose their upper bits, or become infinite."""
    with np.errstate(over="ignore"):
        return np.array(values, dtype=_WIDEST[dtype.kind]).astype(dtype).view(np.uint8).data


def _join(elements: Iterable[bytes]) -> Buffer:
    """The binary form of BYTES elements."""
    data = bytearray()
    for element in elements:
        data += _LENGTH.pack(len(element))
        data += element
    return data


def _encoded_strings(values: list[Any]) -> list[bytes]:
    try:
        return [value.encode("utf-8", "surrogateescape") for value in values]
    except AttributeError:
        text = "Unable to parse JSON bytes array: attempt to access JSON non-string as string"
        raise RequestError(ErrorCode.INTERNAL, text) from None
    except UnicodeEncodeError:
        raise unreadable("data", "The surrogate pair in string is invalid.") from None


def _bounded(name: str, data: Buffer, limit: int) -> Buffer:
    if len(data) > limit:
        raise _too_large(name, len(data), limit)
    return data


def _too_large(name: str, size: int, limit: int) -> RequestError:
    return _invalid(
        f"JSON input '{name}' has a byte_size ({size} bytes) that exceeds the maximum allowed value of {limit} bytes. "
        "Use --http-max-input-size to increase the limit."
    )


def _invalid(text: str) -> RequestError:
    return RequestError(ErrorCode.INVALID_ARG, text)


def encode_values(name: str, datatype: str, data: Buffer) -> bytes:
    """The flat JSON array of output `name`'s values. Raises RequestError for datatypes that JSON cannot carry."""
    if datatype in {"FP16", "BF16"}:
        raise _invalid(
            f"sending {datatype} data via JSON is not supported. Please use the binary data format for output {name}"
        )
    if datatype == "BYTES":
        return _strings(deserialize_bytes(data).tolist())
    values = np.frombuffer(data, NUMPY[datatype])
    if datatype == "FP32":
        with np.errstate(invalid="ignore"):  # a signalling NaN
            values = values.astype(np.float64)  # so that the shortest text of the exact value is written
    if datatype in {"FP32", "FP64"} and not np.isfinite(values).all():
        return dump_leniently(values.tolist())
    return dump(values)


def _strings(elements: list[bytes]) -> bytes:
    try:
        return orjson.dumps([element.decode() for element in elements])
    except UnicodeDecodeError:
        return dump_leniently([element.decode("utf-8", "surrogateescape") for element in elements])
