"""The key of the response cache: equal for equal questions, and only for these."""

from typing import Any

import pytest

from broker.digest import digest
from broker.messages import Infer
from shm.ref import TensorRef
from tests.unit.broker.describe import infer

DATA = bytes(range(16))


def ref(name: str = "IN", datatype: str = "FP32", shape: tuple[int, ...] = (4,), data: bytes = DATA) -> TensorRef:
    return TensorRef(name, datatype, shape, len(data), data)


def key(question: Infer) -> bytes:
    return digest(question, lambda one: one.data or b"")


def asked(**changes: Any) -> bytes:
    return key(infer(1, **{"inputs": (ref(),), "parameters": {"a": 1, "b": "x"}, "outputs": ("A", "B"), **changes}))


def test_what_is_about_the_way_of_a_request_does_not_count() -> None:
    others = {"request_id": "x", "priority": 2, "timeout_us": 5, "received": 3.0, "traceparent": "00-1-2-3"}
    assert asked(**others) == asked()
    assert asked(parameters={"b": "x", "a": 1}) == asked()
    assert len(asked()) == 32


@pytest.mark.parametrize(
    "changes",
    [
        {"inputs": (ref("OTHER"),)},
        {"inputs": (ref(datatype="INT32"),)},
        {"inputs": (ref(shape=(1, 4)),)},
        {"inputs": (ref(shape=(2, 2)),)},
        {"inputs": (ref(data=DATA[::-1]),)},
        {"inputs": (ref(), ref("OTHER"))},
        {"outputs": ("A",)},
        {"outputs": ()},
        {"parameters": {}},
        {"parameters": {"a": 1.0, "b": "x"}},
        {"parameters": {"a": True, "b": "x"}},
        {"parameters": {"a": "1", "b": "x"}},
        {"correlation_id": 1},
        {"correlation_id": "0"},
        {"flags": 1},
        {"is_raw": True},
    ],
    ids=str,
)
def test_whatever_the_model_sees_counts(changes: dict[str, Any]) -> None:
    assert asked(**changes) != asked()


def test_what_cannot_travel_has_none() -> None:
    assert asked(parameters={"a": "\ud800"}) == asked(parameters={"a": 1 << 70}) == b""


def test_where_one_input_ends_and_the_next_begins_counts() -> None:
    def split(at: int) -> bytes:
        first, second = DATA[:at], DATA[at:]
        inputs = (ref("A", "UINT8", (at,), first), ref("B", "UINT8", (len(second),), second))
        return asked(inputs=inputs)

    assert split(4) != split(8)
