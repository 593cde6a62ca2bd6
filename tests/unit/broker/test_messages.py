"""Messages survive the way; whatever else arrives is a ProtocolError and nothing worse."""

import contextlib
from typing import Any, get_args

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.messages import (
    MAX_MESSAGE,
    Beat,
    Cancel,
    Executed,
    Hello,
    Infer,
    Message,
    ProtocolError,
    RegionOpened,
    Result,
    Sample,
    decode,
    encode,
)
from shm.ref import TensorRef
from tests.unit.broker.describe import infer
from tests.unit.broker.wire import ANYTHING, CLASSES, EVERYTHING, MESSAGES

REF = TensorRef("IN", "FP32", (2, 2), 16, None, "tidepool-s-f-0", 64, 1, 2)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: str(cls.__name__))
@settings(max_examples=10)
@given(data=st.data())
def test_every_message_survives_the_way(cls: type[Any], data: st.DataObject) -> None:
    message = data.draw(MESSAGES[cls])
    (arrived,) = decode(encode([message]))
    assert arrived == message
    assert type(arrived) is cls


@given(st.lists(EVERYTHING, max_size=5))
def test_lists_of_messages_arrive_in_order(messages: list[Message]) -> None:
    assert decode(encode(messages)) == messages


@given(st.binary())
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        decode(data)


@given(EVERYTHING, st.data())
def test_damaged_messages_are_refused_or_read(message: Message, data: st.DataObject) -> None:
    packed = bytearray(encode([message]))
    packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ProtocolError):
        decode(bytes(packed))


@given(st.integers(-5, len(CLASSES) + 5), st.lists(ANYTHING, max_size=8))
def test_what_is_read_has_the_declared_types(tag: int, fields: list[Any]) -> None:
    try:
        (message,) = decode(packed(tag, *fields))
    except ProtocolError:
        return
    assert tag in range(len(CLASSES))
    for name, annotation in type(message).__annotations__.items():
        value = getattr(message, name)
        if annotation in (int, str, bool):
            assert type(value) is annotation
        if annotation == tuple[str, ...]:
            assert {type(each) for each in value} <= {str}
        if annotation == tuple[int, ...]:
            assert {type(each) for each in value} <= {int}


def packed(*fields: Any) -> bytes:
    number, *rest = fields
    data: bytes = msgpack.packb([[number, rest]])
    return data


def tag(cls: type[Any]) -> int:
    return get_args(Message).index(cls)


def changed(message: Any, **changes: Any) -> bytes:
    """A message with fields that are not what they should be."""
    values = {**message._asdict(), **changes}
    return packed(tag(type(message)), *values.values())


EXECUTED = Executed(1, (Result(-1, "", (), {}),), (1, 2, 3, 4))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        msgpack.packb("text"),
        msgpack.packb({1: 2}),
        msgpack.packb([1, 2]),
        msgpack.packb(["text"]),
        msgpack.packb([[]]),
        packed(len(CLASSES)),
        packed(-1, (1,)),
        packed(True, 1, 2),
        packed("Hello", 1, "http", 2),
        packed(tag(Hello), 1, "http"),
        packed(tag(Hello), 1, "http", 2, 3),
        packed(tag(Hello), "1", "http", 2),
        packed(tag(Hello), True, "http", 2),
        packed(tag(Cancel), 1.5),
        packed(tag(Beat), None, 0),
        packed(tag(RegionOpened), b"name"),
        packed(tag(Sample), [1, "2"]),
        changed(infer(1), outputs=["OUT", 2]),
        changed(infer(1), outputs=["OUT", {"a": 1}]),
        changed(infer(1), parameters={1: 2}),
        changed(infer(1), inputs=[1]),
        changed(infer(1), inputs=[[*REF, 1]]),
        changed(EXECUTED, times=()),
        changed(EXECUTED, times=(1, 2, 3)),
        changed(EXECUTED, times=(1, 2, 3, "4")),
        changed(EXECUTED, results=[1]),
        changed(EXECUTED, results=[["OK", "", [], {}, 3]]),
        b"\xdd\xff\xff\xff\xff",
        b"\x91" * 5000,
    ],
)
def test_malformed_messages(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(data)


@pytest.mark.parametrize(
    "change",
    [
        {"name": None},
        {"datatype": None},
        {"shape": 3},
        {"shape": ("a",)},
        {"shape": (1.5,)},
        {"shape": (True,)},
        {"byte_size": -1},
        {"byte_size": 1.5},
        {"data": "text"},
        {"region": b"name"},
        {"offset": -1},
        {"slot": "1"},
        {"generation": None},
    ],
    ids=str,
)
def test_references_to_tensors_are_checked(change: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        decode(changed(infer(1), inputs=[REF._replace(**change)]))
    assert decode(changed(infer(1), inputs=[REF]))[0] == infer(1)._replace(inputs=(REF,))


def test_a_message_list_of_more_than_a_gibibyte_is_not_even_looked_at() -> None:
    class Huge(bytes):
        def __len__(self) -> int:
            return MAX_MESSAGE + 1

    with pytest.raises(ProtocolError, match="1073741825 bytes"):
        decode(Huge())


def test_fields_that_are_left_out_have_their_defaults() -> None:
    whole = infer(1)
    (arrived,) = decode(packed(tag(Infer), *whole[:13]))
    assert arrived == whole
