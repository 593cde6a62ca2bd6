"""JSON documents: what is accepted beyond the standard, and the texts for what is not."""

import contextlib
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.messages import ErrorCode
from frontends.errors import RequestError
from frontends.http.documents import dump, dump_leniently, parse

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_documents_survive_the_round_trip(document: object) -> None:
    assert parse(dump_leniently(document)) == document
    assert parse(json.dumps(document).encode()) == document


def test_numbers_that_json_does_not_have() -> None:
    values = parse(b'{"a": [NaN, Infinity, -Infinity, Inf, -Inf], "b": ["Inf", "\\"Inf"]}')
    assert math.isnan(values["a"][0])
    assert values["a"][1:] == [math.inf, -math.inf, math.inf, -math.inf]
    assert values["b"] == ["Inf", '"Inf']
    assert dump_leniently([math.nan, math.inf, -math.inf]) == b"[NaN,Infinity,-Infinity]"


def test_bytes_that_are_no_text_come_back_as_they_were() -> None:
    (value,) = parse(b'["\xff\xc3\xa9\xfe"]')
    assert value.encode("utf-8", "surrogateescape") == b"\xff\xc3\xa9\xfe"
    assert dump_leniently([value]) == b'["\xff\xc3\xa9\xfe"]'


def test_a_byte_order_mark_is_no_error() -> None:
    assert parse(b"\xef\xbb\xbf{}") == {}


@pytest.mark.parametrize(
    ("text", "error"),
    [  # as a real server answers them
        (b"x", "Invalid value. at 0"),
        (b" ", "The document is empty. at 1"),
        (b"{", "Missing a name for object member. at 1"),
        (b'{"a"', "Missing a colon after a name of object member. at 4"),
        (b'{"a" 1}', "Missing a colon after a name of object member. at 5"),
        (b'{"a":}', "Invalid value. at 5"),
        (b'{"a":1', "Missing a comma or '}' after an object member. at 6"),
        (b'{"a":[]} "b"', "The document root must not be followed by other values. at 9"),
        (b'{"a":1,}', "Missing a name for object member. at 7"),
        (b'{"a":[1', "Missing a comma or ']' after an array element. at 7"),
        (b'{"[":[1 2]}', "Missing a comma or ']' after an array element. at 8"),
        (b'{"a":[{}], "b": 1 2}', "Missing a comma or '}' after an object member. at 18"),
        (b'{"a":[1,]}', "Invalid value. at 8"),
        (b'{"id":-}', "Invalid value. at 7"),
        (b'{"id":1.}', "Miss fraction part in number. at 8"),
        (b'{"id":1e}', "Miss exponent in number. at 8"),
        (b"[1.5e+]", "Miss exponent in number. at 6"),
        (b"1.", "Miss fraction part in number. at 2"),
        (b'{"id":01}', "Missing a comma or '}' after an object member. at 7"),
        (b'{"id":tru}', "Invalid value. at 9"),
        (b"[fals]", "Invalid value. at 5"),
        (b"[f]", "Invalid value. at 2"),
        (rb'{"id":"\u12g4"}', "Incorrect hex digit after \\u escape in string. at 7"),
        (b'{"a":"x', "Missing a closing quotation mark in string. at 7"),
        (b'{"a":"\\q"}', "Invalid escape character in string. at 6"),
        (b'{"a":"\x01"}', "Invalid escape character in string. at 6"),
        (b"{} x", "The document root must not be followed by other values. at 3"),
        (b"[" + b"9" * 5000 + b",NaN]", "Number too big to be stored in double. at 0"),
    ],
)
def test_syntax_errors(text: bytes, error: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse(text)
    assert caught.value.code == ErrorCode.INTERNAL
    assert caught.value.message == f"failed to parse the request JSON buffer: {error}"


@pytest.mark.timeout(20)
@pytest.mark.parametrize("begin", ['[NaN, Inf, "', '["x" "', '{"'])
def test_no_text_takes_long(begin: str) -> None:
    for repeated in ('\\"', '"', "[],", "\\"):
        with contextlib.suppress(RequestError):
            parse((begin + repeated * 300_000).encode())


def test_nesting_is_bounded() -> None:
    with pytest.raises(RequestError, match=r"nesting depth exceeds maximum allowed limit \(100\)"):
        parse(b"[" * 100_000)


@given(st.binary(max_size=40))
def test_any_bytes_give_a_document_or_an_error_for_the_client(text: bytes) -> None:
    with contextlib.suppress(RequestError):
        parse(text)


def test_compact_output() -> None:
    assert dump({"a": [1, "é"], "b": (1.0, True)}) == '{"a":[1,"é"],"b":[1.0,true]}'.encode()
