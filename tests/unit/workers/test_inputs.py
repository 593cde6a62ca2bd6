"""Inputs: what is a view, what is a copy, and what a model may write to."""

import os
from collections.abc import Iterator

import pytest

from broker.messages import ErrorCode
from shm import copies
from shm.ref import TensorRef
from shm.region import Region, name_for, sweep
from shm.tensor import Regions
from workers.client_memory import ClientMemory
from workers.errors import BackendError
from workers.inputs import COPY_LIMIT, Inputs

SIZE = COPY_LIMIT + (1 << 20)


class Memory:
    """A region of zeros, with references into it."""

    def __init__(self, server: str) -> None:
        self.region = Region.create(name_for(server, "f1", 0), SIZE)
        self.regions = Regions()
        self.regions.open(self.region.name)
        self.inputs = Inputs(self.regions, ClientMemory())

    def ref(self, size: int, offset: int = 0) -> TensorRef:
        return TensorRef("x", "INT32", (size // 4,), size, None, self.region.name, offset)


@pytest.fixture
def memory() -> Iterator[Memory]:
    server = os.urandom(4).hex()
    yield Memory(server)
    sweep(server)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    by_place: dict[str, int] = {}
    monkeypatch.setattr(copies, "by_place", by_place)
    return by_place


def test_an_array_is_a_view_that_cannot_be_written(memory: Memory, counted: dict[str, int]) -> None:
    array = memory.inputs.array(memory.ref(4096))
    memory.region.view[:4] = b"\7\0\0\0"
    assert array[0] == 7
    assert not array.flags.writeable
    assert counted == {}


def test_an_unaligned_array_is_copied(memory: Memory, counted: dict[str, int]) -> None:
    memory.region.view[1:5] = b"\7\0\0\0"
    array = memory.inputs.array(memory.ref(4096, 1))
    assert array.flags.aligned
    assert array[0] == 7
    assert counted == {"unaligned": 4096}


@pytest.mark.parametrize(
    ("size", "offset", "copied"),
    [(4096, 0, True), (4096, 1, True), (SIZE - 8, 0, False), (SIZE - 8, 4, False), (SIZE - 8, 2, True)],
)
def test_a_private_array_is_nobody_elses(
    memory: Memory, counted: dict[str, int], size: int, offset: int, copied: bool
) -> None:
    memory.region.view[offset : offset + 4] = b"\7\0\0\0"
    array = memory.inputs.private(memory.ref(size, offset))
    assert array[0] == 7
    array += 1
    assert bytes(memory.region.view[offset : offset + 8]) == b"\7\0\0\0\0\0\0\0"
    assert memory.inputs.private(memory.ref(size, offset))[0] == 7
    assert counted.get("private", 0) == (2 * size if copied else 0)


def test_a_private_array_of_a_closed_region_stays(memory: Memory) -> None:
    array = memory.inputs.private(memory.ref(SIZE))
    memory.regions.close(memory.region.name)
    assert array.sum() == 0
    with pytest.raises(BackendError, match="the shared memory of input 'x' is gone") as raised:
        memory.inputs.private(memory.ref(SIZE))
    assert raised.value.code == ErrorCode.UNAVAILABLE


def test_a_reference_beyond_its_region(memory: Memory) -> None:
    with pytest.raises(BackendError, match="reaches beyond its region"):
        memory.inputs.array(memory.ref(4096, SIZE))


def test_strings() -> None:
    inputs = Inputs(Regions(), ClientMemory())
    data = b"\1\0\0\0a\2\0\0\0\xc3\xa9"
    assert inputs.array(TensorRef("x", "BYTES", (2,), len(data), data)).tolist() == [b"a", "é".encode()]
    assert inputs.texts(TensorRef("x", "BYTES", (1, 2), len(data), data)).tolist() == [["a", "é"]]
    for broken in (data[:-1], data[:7], data + b"\0\0\0\0"):
        with pytest.raises(BackendError, match="for inference input 'x'") as raised:
            inputs.private(TensorRef("x", "BYTES", (2,), len(broken), broken))
        assert raised.value.code == ErrorCode.INVALID_ARG
    with pytest.raises(BackendError, match="not UTF-8"):
        inputs.texts(TensorRef("x", "BYTES", (1,), 5, b"\1\0\0\0\xff"))
