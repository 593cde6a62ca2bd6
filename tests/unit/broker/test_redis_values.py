"""What is stored in Redis: it comes back as it was, and anything else is no response."""

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.messages import CachePut
from broker.redis_cache import pack, unpack
from shm.ref import TensorRef
from shm.tensor import Regions

TENSOR = ("OUT", "FP32", (1,), b"1234")


def test_a_response_comes_back() -> None:
    refs = (TensorRef("OUT", "FP32", (1, 1), 4, b"1234"), TensorRef("T", "BYTES", (0,), 0, b""))
    value = pack(CachePut(1, "k", refs, {"a": 1, "b": "x"}), Regions())
    assert unpack(value) == ([("OUT", "FP32", (1, 1), b"1234"), ("T", "BYTES", (0,), b"")], {"a": 1, "b": "x"})


def test_a_response_whose_memory_is_gone_is_none() -> None:
    gone = TensorRef("OUT", "FP32", (1,), 4, None, "tidepool-s-w1-0")
    with pytest.raises(KeyError):
        pack(CachePut(1, "k", (gone,), {}), Regions())


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        [[TENSOR]],
        [[TENSOR[:3]], {}],
        [[(1, *TENSOR[1:])], {}],
        [[("OUT", "FP32", 1, b"")], {}],
        [[("OUT", "FP32", ("1",), b"")], {}],
        [[("OUT", "FP32", (1,), "text")], {}],
        [[TENSOR], []],
        [[TENSOR], {1: 2}],
        [[TENSOR], {"a": []}],
        [[("OUT", "FP32", (2,), b"1234")], {}],
        [[("OUT", "FP32", (-1,), b"1234")], {}],
        [[("OUT", "FP31", (1,), b"1234")], {}],
    ],
    ids=str,
)
def test_what_is_no_response(content: Any) -> None:
    with pytest.raises(ValueError, match="no response"):
        unpack(msgpack.packb(content))


@given(st.binary(max_size=200))
def test_nonsense_is_no_response(value: bytes) -> None:
    try:
        unpack(value)
    except ValueError:
        return
