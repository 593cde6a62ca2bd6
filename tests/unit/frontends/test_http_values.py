"""Tensor values in JSON: which are accepted for a datatype, and how they are written."""

import json
import struct
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.messages import ErrorCode
from frontends.errors import RequestError
from frontends.http.documents import parse
from frontends.http.values import decode_values, encode_values
from shm.tensor import NUMPY, deserialize_bytes

LIMIT = 1 << 20
NUMBERS = sorted(set(NUMPY) - {"BYTES", "FP16", "BF16"})


def decode(datatype: str, data: Any, shape: list[int] | None = None) -> list[Any]:
    """The values as the model would see them."""
    binary = decode_values("IN", datatype, [len(data)] if shape is None else shape, data, LIMIT)
    if datatype == "BYTES":
        return list(deserialize_bytes(binary))
    values: list[Any] = np.frombuffer(binary, NUMPY[datatype]).tolist()
    return values


def refusal(datatype: str, data: Any, shape: list[int]) -> RequestError:
    with pytest.raises(RequestError) as caught:
        decode(datatype, data, shape)
    return caught.value


@given(st.data(), st.sampled_from(NUMBERS))
def test_every_value_survives_the_round_trip(data: st.DataObject, datatype: str) -> None:
    dtype = NUMPY[datatype]
    size = data.draw(st.integers(0, 5))
    binary = data.draw(st.binary(min_size=size * dtype.itemsize, max_size=size * dtype.itemsize))
    if datatype == "BOOL":
        binary = bytes(byte & 1 for byte in binary)
    array = np.frombuffer(binary, dtype)
    again = decode_values("IN", datatype, [size], parse(encode_values("OUT", datatype, binary)), LIMIT)
    np.testing.assert_array_equal(np.frombuffer(again, dtype), array)


@given(st.lists(st.binary(max_size=6), max_size=5))
def test_every_string_survives_the_round_trip(elements: list[bytes]) -> None:
    binary = b"".join(struct.pack("<I", len(e)) + e for e in elements)
    values = parse(encode_values("OUT", "BYTES", binary))
    assert bytes(decode_values("IN", "BYTES", [len(elements)], values, LIMIT)) == binary


def test_nesting_is_flattened_in_order() -> None:
    assert decode("INT32", [[[1, 2], [3]], 4, [[]]], [2, 2]) == [1, 2, 3, 4]
    assert decode("BYTES", [["a"], [], "b"], [2]) == [b"a", b"b"]


def test_integers_lose_the_bits_that_do_not_fit() -> None:
    assert decode("INT8", [300, -129]) == [44, 127]
    assert decode("UINT8", [256, 511]) == [0, 255]
    assert decode("INT32", [4294967297]) == [1]
    assert decode("UINT64", [2**64 - 1]) == [2**64 - 1]


def test_floats_take_any_number() -> None:
    assert decode("FP32", [1e39, -1e39, 1, 2**64]) == [np.inf, -np.inf, 1.0, float(2**64)]
    assert decode("FP64", [1, 0.1]) == [1.0, 0.1]


@pytest.mark.parametrize(
    ("datatype", "value", "text"),
    [
        ("BOOL", 1, "non-boolean as boolean"),
        ("INT8", 1.0, "non-signed-integer as signed-integer"),
        ("INT8", True, "non-signed-integer as signed-integer"),
        ("INT64", 2**63, "non-signed-integer as signed-integer"),
        ("UINT8", -1, "non-unsigned-integer as unsigned-integer"),
        ("UINT8", 1.0, "non-unsigned-integer as unsigned-integer"),
        ("FP32", True, "non-number as double"),
        ("FP32", None, "non-number as double"),
        ("FP64", "1", "non-number as double"),
        ("FP64", {}, "non-number as double"),
    ],
)
def test_values_of_the_wrong_type(datatype: str, value: Any, text: str) -> None:
    error = refusal(datatype, [value], [1])
    assert (error.code, error.message) == (
        ErrorCode.INTERNAL,
        f"Unable to parse 'data': attempt to access JSON {text}",
    )


def test_strings_of_the_wrong_type() -> None:
    error = refusal("BYTES", ["a", 1], [2])
    assert (error.code, error.message) == (
        ErrorCode.INTERNAL,
        "Unable to parse JSON bytes array: attempt to access JSON non-string as string",
    )
    assert "surrogate pair" in refusal("BYTES", ["\ud800"], [1]).message


@pytest.mark.parametrize("data", [[1, 2], [], [[1], [2]], [1, "x"]])
def test_the_number_of_values_is_that_of_the_shape(data: list[Any]) -> None:
    error = refusal("FP32", data, [1])
    assert error.code == ErrorCode.INTERNAL
    assert error.message == "Unable to parse 'data': Shape does not match true shape of 'data' field"


def test_a_shape_of_a_hundred_thousand_dimensions_is_refused_at_once() -> None:
    began = time.process_time()
    assert "exceeds the maximum allowed value" in refusal("FP32", [1], [2**62] * 100_000).message
    assert time.process_time() - began < 2


def test_data_that_is_no_array() -> None:
    assert refusal("FP32", 3, [1]).message == "Unable to parse 'data': attempt to access JSON non-array as array"


def test_datatypes_without_a_json_form() -> None:
    assert refusal("FP16", [1], [1]).message == (
        "receiving FP16 data via JSON is not supported. Please use the binary data format for input IN"
    )
    assert refusal("fp32", [1], [1]).message == "invalid datatype for input IN"
    with pytest.raises(RequestError) as caught:
        encode_values("OUT", "BF16", b"\0\0")
    assert (caught.value.code, caught.value.message) == (
        ErrorCode.INVALID_ARG,
        "sending BF16 data via JSON is not supported. Please use the binary data format for output OUT",
    )


@pytest.mark.parametrize(("datatype", "data", "shape"), [("FP64", [1], [LIMIT]), ("BYTES", ["x" * LIMIT], [1])])
def test_the_size_of_a_tensor_is_bounded(datatype: str, data: list[Any], shape: list[int]) -> None:
    error = refusal(datatype, data, shape)
    assert error.code == ErrorCode.INVALID_ARG
    assert error.message.startswith("JSON input 'IN' has a byte_size (")
    assert error.message.endswith("Use --http-max-input-size to increase the limit.")


def test_nesting_is_bounded() -> None:
    data: list[Any] = [1]
    for _ in range(100):
        data = [data]
    assert refusal("FP32", data, [1]).message == "JSON nesting depth exceeds maximum allowed limit (100)"


def test_fp32_is_written_as_the_double_it_is() -> None:
    binary = np.array([0.1, 1, 1e30, -0.0, 1e-45], np.float32).tobytes()
    text = encode_values("OUT", "FP32", binary)
    assert text.startswith(b"[0.10000000149011612,1.0,1.0000000150474662e")
    assert np.array(json.loads(text), np.float32).tobytes() == binary


def test_numbers_that_json_does_not_have() -> None:
    assert encode_values("OUT", "FP32", np.array([np.nan, np.inf, -np.inf, 0.5], "<f4").tobytes()) == (
        b"[NaN,Infinity,-Infinity,0.5]"
    )


def test_other_forms() -> None:
    assert encode_values("OUT", "BOOL", b"\1\0") == b"[true,false]"
    assert encode_values("OUT", "UINT64", b"\xff" * 8) == b"[18446744073709551615]"
    assert encode_values("OUT", "BYTES", b'\3\0\0\0a"\n\1\0\0\0\xff') == b'["a\\"\\n","\xff"]'
