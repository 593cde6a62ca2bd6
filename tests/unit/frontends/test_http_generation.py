"""The generate extension's JSON: which members become what, in which shape, and what is written."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.messages import ErrorCode, Response
from frontends.errors import RequestError
from frontends.http.generation import Declared, Generation, decode_generation, encode_generation, event
from shm.arena import inline
from shm.ref import TensorRef

LIMIT = 1 << 20
SHAPE = "The schema can not convert input '{}' to tensor with proper shape"
DECLARED = {
    "IN": Declared("INT32", (-1, 2)),
    "TEXT": Declared("BYTES", (-1,)),
    "FIXED": Declared("FP32", (3,)),
    "HALF": Declared("FP16", (-1,)),
}


def decode(document: Any, declared: dict[str, Declared] = DECLARED, limit: int = LIMIT) -> Generation:
    return decode_generation(document, declared, limit)


def shape_of(value: Any, *dims: int) -> tuple[int, ...]:
    (found,) = decode({"X": value}, {"X": Declared("INT8", dims)}).inputs
    assert len(found.data) == np.prod(found.shape, dtype=int)
    return found.shape


def refusal(document: Any, declared: dict[str, Declared] = DECLARED, limit: int = LIMIT) -> tuple[int, str]:
    with pytest.raises(RequestError) as caught:
        decode(document, declared, limit)
    return caught.value.code, caught.value.message


def test_members_become_inputs_or_parameters() -> None:
    found = decode({"id": "7", "IN": [1, 2], "a": 1, "parameters": {"TEXT": "x", "a": 2, "b": 0.5}, "priority": 3})
    assert [(i.name, i.datatype, i.shape, bytes(i.data)) for i in found.inputs] == [
        ("IN", "INT32", (1, 2), b"\1\0\0\0\2\0\0\0"),
        ("TEXT", "BYTES", (1,), b"\1\0\0\0x"),
    ]
    assert found.request_id == "7"
    assert found.parameters == {"id": "7", "a": 2, "b": 0.5, "priority": 3}


def test_shapes() -> None:
    assert shape_of(5, -1) == shape_of([5], -1) == (1,)
    assert shape_of([1, 2, 3], -1, -1) == (1, 3)
    assert shape_of([1, 2, 3, 4], -1, 2) == (2, 2)
    assert shape_of([1, 2, 3, 4], -1, 2, -1) == (1, 2, 2)
    assert shape_of([], -1) == (0,)
    assert shape_of([], -1, 3) == (0, 3)
    assert shape_of(5) == ()
    assert shape_of([], 0) == (0,)


@given(st.lists(st.integers(-1, 4), max_size=4), st.integers(0, 30))
def test_a_shape_has_as_many_elements_as_were_given(dims: list[int], count: int) -> None:
    fixed = int(np.prod([dim for dim in dims if dim != -1], dtype=int))
    is_possible = count % fixed == 0 and (-1 in dims or count == fixed) if fixed else count == 0
    if not is_possible:
        assert refusal({"X": [0] * count}, {"X": Declared("INT8", tuple(dims))}) == (3, SHAPE.format("X"))
        return
    shape = shape_of([0] * count, *dims)
    assert len(shape) == len(dims)
    assert np.prod(shape, dtype=int) == count
    assert all(dim in (-1, size) for dim, size in zip(dims, shape, strict=True))


NON_NUMBER = "Unable to parse 'data': attempt to access JSON non-number as double"
BAD = " has invalid type. It should be either 'int', 'bool', or 'string'."
BAD_TYPE = f"parameter 'd'{BAD}"


@pytest.mark.parametrize(
    ("document", "code", "text"),
    [
        ([1], 1, "attempt to get members for non-object"),
        (1, 1, "attempt to get members for non-object"),
        ({"id": 7}, 1, "Unable to parse 'id': attempt to access JSON non-string as string"),
        ({"FIXED": [1, 2]}, 3, SHAPE.format("FIXED")),
        ({"FIXED": [1, 2, 3] * 2}, 3, SHAPE.format("FIXED")),
        ({"FIXED": []}, 3, SHAPE.format("FIXED")),
        ({"IN": [1, 2, 3]}, 3, SHAPE.format("IN")),
        ({"FIXED": [1, 2, None]}, 1, NON_NUMBER),
        ({"FIXED": [1, 2, True]}, 1, NON_NUMBER),
        ({"IN": [[1, 2], [3]]}, 1, "Unable to parse 'data': Shape does not match true shape of 'data' field"),
        ({"TEXT": {}}, 1, "Unable to parse JSON bytes array: attempt to access JSON non-string as string"),
        (
            {"HALF": 1},
            3,
            "receiving FP16 data via JSON is not supported. Please use the binary data format for input HALF",
        ),
        ({"d": [1]}, 3, BAD_TYPE),
        ({"d": {}}, 3, BAD_TYPE),
        ({"d": None}, 3, BAD_TYPE),
        ({"parameters": {"d": None}}, 3, f"Converting keyword: 'parameters': {BAD_TYPE}"),
        (
            {"parameters": {"parameters": {}}},
            3,
            f"Converting keyword: 'parameters': parameter 'parameters'{BAD}",
        ),
        (
            {"parameters": []},
            1,
            "Expected JSON object for keyword: 'parameters': attempt to access JSON non-object as object",
        ),
        (
            {"TEXT": "a", "parameters": {"TEXT": "b"}},
            3,
            "Converting keyword: 'parameters': input 'TEXT' already exists in request",
        ),
        ({"big": 10**400}, 1, "Unable to parse 'parameters': Number too big to be stored in double."),
    ],
)
def test_errors(document: Any, code: int, text: str) -> None:
    assert refusal(document) == (code, text)


def test_an_input_must_not_be_called_parameters() -> None:
    expected = (3, "Keyword 'parameters' for nested schema also given as input tensor name")
    assert refusal({}, {"parameters": Declared("FP32", (-1,))}) == expected


def test_all_inputs_together_are_bounded() -> None:
    assert len(decode({"IN": [0] * 4, "TEXT": "x" * 12}, limit=32).inputs) == 2
    assert refusal({"IN": [0] * 4, "TEXT": "x" * 13}, limit=32) == (
        3,
        "request size of 33 bytes with input 'TEXT' of size 17 bytes exceeds the maximum allowed input size of 32. "
        "Use --http-max-input-size to increase the limit.",
    )


def encode(*outputs: TensorRef, request_id: str = "", **parameters: Any) -> str:
    response = Response(1, ErrorCode.OK, "", "m", 2, outputs, parameters)
    return encode_generation(response, [ref.data or b"" for ref in outputs], request_id).decode()


def test_members_are_sorted_by_bytes() -> None:
    text = inline("text", "BYTES", (1, 1), b"\2\0\0\0hi")
    numbers = inline("ÄRGER", "INT8", (2,), b"\1\xff")
    nothing = inline("Empty", "FP32", (0,), b"")
    found = encode(text, numbers, nothing, request_id="i", zeta=1.5, Alpha="x", yes=True, nan=float("nan"))
    assert found == (
        '{"Alpha":"x","Empty":[],"id":"i","model_name":"m","model_version":"2","nan":NaN,"text":"hi","yes":true,'
        '"zeta":1.5,"ÄRGER":[1,-1]}'
    )
    assert json.loads(encode(inline("x", "FP32", (), b"\0\0\x80\x3f")))["x"] == 1.0


def test_outputs_that_json_cannot_carry() -> None:
    with pytest.raises(RequestError, match="sending FP16 data via JSON is not supported"):
        encode(inline("h", "FP16", (1,), b"\0\0"))
    with pytest.raises(RequestError, match="response parameter 'p' has a type that JSON cannot carry"):
        encode(p=b"x")


def test_an_event() -> None:
    assert event(b'{"a":1}') == b'data: {"a":1}\n\n'
