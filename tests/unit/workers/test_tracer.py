"""Tensors as text in traces."""

import struct

import numpy as np
import pytest

from broker.messages import BACKEND_OUTPUT, QUEUE_INPUT, TENSORS, ErrorCode, Item, Message, TensorsTraced
from shm.arena import inline
from shm.tensor import Regions
from workers.client_memory import ClientMemory
from workers.errors import BackendError
from workers.inputs import Inputs
from workers.outcome import Output, Response
from workers.tracer import MAX_ELEMENTS, Tracer, text_of


@pytest.mark.parametrize(
    ("datatype", "array", "text"),
    [
        (
            "FP32",
            np.array([0.1, 1 / 3, 1e10, 1234567, np.nan, np.inf, -0.0], "<f4"),
            "0.1,0.333333,1e+10,1.23457e+06,nan,inf,-0",
        ),
        ("FP64", np.array([123456789.123]), "1.23457e+08"),
        ("FP16", np.array([1.5], np.float16), "1.5"),
        ("BF16", np.array([0x3FC0], "<u2"), "1.5"),
        ("BOOL", np.array([True, False]), "1,0"),
        ("UINT8", np.array([0, 65], np.uint8), "0,65"),
        ("UINT64", np.array([2**64 - 1], np.uint64), "18446744073709551615"),
        ("INT64", np.array([[-(2**63)]]), "-9223372036854775808"),
        ("INT32", np.array([], np.int32), ""),
        ("INT8", np.zeros(MAX_ELEMENTS + 1, np.int8), ",".join(["0"] * MAX_ELEMENTS) + ",..."),
    ],
)
def test_numbers(datatype: str, array: np.ndarray, text: str) -> None:  # type: ignore[type-arg]  # of any type
    assert text_of(datatype, array.shape, array.tobytes()) == text


def test_strings_and_what_is_none() -> None:
    data = b"".join(struct.pack("<I", len(each)) + each for each in (b"ab", b"\xff", b""))
    assert text_of("BYTES", (3,), data) == '"ab","�",""'
    assert "incomplete string" in text_of("BYTES", (1,), b"\1")


def item(trace: str, *outputs: str) -> Item:
    return Item(
        "", (inline("IN", "INT32", (1, 2), struct.pack("<2i", 4, 5)),), outputs, {}, 0, 0, 0, 0, "h1", (), trace
    )


def test_requests_that_ask_for_it_are_told() -> None:
    sent: list[Message] = []
    tracer = Tracer(Inputs(Regions(), ClientMemory()), sent.append)
    items = (item(""), item(TENSORS, "OUT"), item('{"traceparent": "x"}'), item(TENSORS))
    tracer.inputs(7, items)
    told = (("IN", "4,5", "1,2", "INT32"),)
    assert sent == [TensorsTraced(7, 1, QUEUE_INPUT, told), TensorsTraced(7, 3, QUEUE_INPUT, told)]
    sent.clear()
    answer = Response([Output("OUT", "INT8", (1,), b"\1"), Output("MORE", "INT8", (1,), b"\2")], {})
    tracer.outputs(7, items, [answer, answer, answer, BackendError(ErrorCode.INTERNAL, "no")])
    assert sent == [TensorsTraced(7, 1, BACKEND_OUTPUT, (("OUT", "1", "1", "INT8"),))]
