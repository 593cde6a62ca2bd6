"""Outputs that are written where they are to be read."""

from collections.abc import Iterator

import numpy as np
import pytest

from broker.child import Place
from broker.messages import ErrorCode, Item, Load, PassOn, Target
from shm import copies
from shm.region import sweep
from workers.client_memory import ClientMemory
from workers.errors import BackendError
from workers.outcome import Output, Response
from workers.outputs import Outputs

SERVER = "0utputs0"
SIZE = 8192


@pytest.fixture
def outputs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Outputs]:
    monkeypatch.setattr(copies, "by_place", {})
    made = Outputs(Place("", "w", SERVER, 0), ClientMemory(), lambda message: None)
    made.open(Load("m", 1, "m_0", "onnxruntime", "", "KIND_CPU", 0, "{}", {}, (1 << 20, 1 << 20, 1 << 20), 0))
    made.declare(["y", "z"])
    yield made
    sweep(SERVER)


def item(*names: str, reader: str = "reader", target: str = "") -> Item:
    targets = (Target(target, "@1", 0, SIZE),) if target else ()
    return Item("", (), names, {}, 0, 0, 0, 0, reader, targets)


def lent(outputs: Outputs, request: Item, name: str = "y") -> memoryview:
    room = outputs.room(request, name, SIZE)
    assert room is not None
    return room


def answer(room: memoryview) -> Response:
    """As a backend gives it back: another view of the same memory."""
    return Response([Output("y", "UINT8", (SIZE,), np.frombuffer(room, np.uint8).data)], {})


def used(outputs: Outputs) -> int:
    return outputs.trim()[0]


def test_what_is_written_in_a_room_is_not_copied(outputs: Outputs) -> None:
    room = lent(outputs, item())
    room[:3] = b"abc"
    (ref,) = outputs.result(item(), answer(room)).outputs
    assert (ref.name, ref.shape, ref.byte_size, ref.data) == ("y", (SIZE,), SIZE, None)
    assert ref.region
    assert copies.by_place == {}
    assert used(outputs) == SIZE
    outputs.reader_gone("reader")
    assert used(outputs) == 0, "it was the reader's"


def test_a_room_for_a_reader_to_be_is_kept_until_it_is_passed_on(outputs: Outputs) -> None:
    room = lent(outputs, item(reader=""))
    (ref,) = outputs.result(item(reader=""), answer(room)).outputs
    assert used(outputs) == SIZE
    outputs.pass_on(PassOn(ref.region, ref.slot, ref.generation, ""))
    assert used(outputs) == 0


@pytest.mark.parametrize(
    ("request_", "name"),
    [(item(), "state"), (item("z"), "y"), (item(target="y"), "y"), (item(reader="dead"), "y")],
    ids=["undeclared", "not asked for", "wanted elsewhere", "for a dead reader"],
)
def test_there_is_no_room_for_what_is_not_read_from_there(outputs: Outputs, request_: Item, name: str) -> None:
    outputs.reader_gone("dead")
    assert outputs.room(request_, name, SIZE) is None


def test_there_is_no_room_before_the_outputs_are_known() -> None:
    """Warm-up requests, whose outputs nobody takes."""
    made = Outputs(Place("", "w", SERVER, 0), ClientMemory(), lambda message: None)
    assert made.room(item(), "y", SIZE) is None


def test_there_is_no_room_in_a_full_arena(outputs: Outputs) -> None:
    assert outputs.room(item(), "y", 2 << 20) is None


def test_what_is_lent_in_vain_is_free_again(outputs: Outputs) -> None:
    lent(outputs, item())
    assert outputs.result(item(), BackendError(ErrorCode.INTERNAL, "no")).code == ErrorCode.INTERNAL
    assert used(outputs) == 0
    lent(outputs, item())
    room = lent(outputs, item(), "z")
    outputs.result(item(), answer(memoryview(bytes(SIZE))))
    assert used(outputs) == SIZE, "of the copy"
    assert copies.by_place == {"arena": SIZE}
    outputs.reader_gone("reader")
    assert outputs.result(item(), answer(room)).outputs == ()
    lent(outputs, item(reader="other"))
    assert outputs.result(item(reader="reader"), answer(memoryview(bytes(SIZE)))).outputs == ()
    assert used(outputs) == 0
    lent(outputs, item(reader="other"))
    too_much = Response([Output("y", "UINT8", (2 << 20,), bytes(2 << 20))], {})
    assert outputs.result(item(reader="other"), too_much).code == ErrorCode.UNAVAILABLE
    assert used(outputs) == 0


def test_a_reader_may_die_while_its_output_is_being_written(outputs: Outputs) -> None:
    room = lent(outputs, item())
    outputs.reader_gone("reader")
    other = lent(outputs, item(reader="other"))
    other[:] = bytes(SIZE)
    room[:] = b"x" * SIZE
    assert bytes(other) == bytes(SIZE), "a block is nobody else's until the execution is over"
    assert outputs.result(item(), answer(room)).outputs == ()
    assert used(outputs) == 0
