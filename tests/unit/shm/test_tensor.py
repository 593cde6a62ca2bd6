"""Tensors as arrays over the bytes where they lie, BYTES, references, and the regions of other processes."""

import os
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from shm.arena import inline
from shm.datatypes import DATATYPES, ELEMENT_SIZE, ENDLESS, element_count, expected_byte_size
from shm.ref import TensorRef
from shm.region import DIRECTORY, PAGE, Region, name_for, sweep
from shm.tensor import (
    NUMPY,
    Regions,
    as_array,
    binary_form,
    datatype_of,
    deserialize_bytes,
    serialize_bytes,
)

FIXED = sorted(ELEMENT_SIZE)


# ------------------------------------------------------------------------------------------- datatypes


def test_numpy_agrees_about_sizes() -> None:
    assert set(NUMPY) == DATATYPES
    assert {name: NUMPY[name].itemsize for name in FIXED} == ELEMENT_SIZE


@pytest.mark.parametrize("datatype", FIXED)
def test_every_datatype_has_its_numpy_type(datatype: str) -> None:
    assert datatype_of(NUMPY[datatype]) == ("UINT16" if datatype == "BF16" else datatype)


def test_types_that_the_protocol_does_not_have() -> None:
    for dtype in (np.complex64, "U5", "M8[s]", ">f4", [("a", "i4")]):
        assert datatype_of(np.dtype(dtype)) is None
    assert datatype_of(np.dtype("S5")) == datatype_of(np.dtype(object)) == "BYTES"


def test_sizes() -> None:
    assert element_count([]) == 1
    assert element_count([2, 0, 3]) == 0
    assert expected_byte_size("FP64", [2, 3]) == 48
    assert expected_byte_size("BYTES", [2, 3]) is None
    assert element_count([2**62] * 1000) == ENDLESS
    assert element_count([2**62] * 1000 + [0]) == 0


# ------------------------------------------------------------------------------------------- arrays


@given(st.data(), st.sampled_from(FIXED), arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
def test_arrays_survive_the_way(data: st.DataObject, datatype: str, shape: tuple[int, ...]) -> None:
    array = data.draw(arrays.arrays(NUMPY[datatype], shape))
    packed = binary_form(datatype, array)
    assert len(packed) == expected_byte_size(datatype, shape)
    again = as_array(datatype, shape, packed)
    assert again.shape == shape
    assert again.tobytes() == array.tobytes()


@given(arrays.arrays(np.int32, (3, 4)))
def test_other_layouts_are_put_in_order(array: Any) -> None:
    for changed in (array.T, array[::-1], array[:, ::2]):
        packed = binary_form("INT32", changed)
        np.testing.assert_array_equal(as_array("INT32", changed.shape, packed), changed)


def test_an_array_in_order_is_not_copied() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    packed = binary_form("FP32", array)
    array[0, 0] = 7
    assert struct.unpack("<f", packed[:4]) == (7,)


def test_an_array_over_writable_memory_can_be_written() -> None:
    memory = bytearray(8)
    as_array("INT32", (2,), memory)[1] = 5
    assert memory == b"\0\0\0\0\x05\0\0\0"
    assert not as_array("INT32", (2,), bytes(8)).flags.writeable


@pytest.mark.parametrize(("shape", "size"), [((3,), 8), ((2,), 12), ((1,), 7)])
def test_bytes_that_do_not_fit_the_shape(shape: tuple[int, ...], size: int) -> None:
    with pytest.raises(ValueError):
        as_array("INT32", shape, bytes(size))


# ------------------------------------------------------------------------------------------- BYTES


@given(st.lists(st.binary(max_size=20), max_size=10))
def test_text_survives_the_way(elements: list[bytes]) -> None:
    array = np.empty(len(elements), dtype=object)
    array[:] = elements
    packed = serialize_bytes(array)
    assert list(deserialize_bytes(packed)) == elements
    assert list(deserialize_bytes(memoryview(packed), len(elements))) == elements
    assert as_array("BYTES", (1, len(elements)), packed).shape == (1, len(elements))


def test_what_is_no_bytes_becomes_text() -> None:
    mixed = np.array(["é", 7, b"\xff"], dtype=object)
    assert list(deserialize_bytes(serialize_bytes(mixed))) == ["é".encode(), b"7", b"\xff"]
    assert list(deserialize_bytes(serialize_bytes(np.array([b"ab", b"c"])))) == [b"ab", b"c"]


@pytest.mark.parametrize(
    ("data", "expected", "text"),
    [
        (b"\x01", None, "incomplete string length indicator"),
        (b"\x02\0\0\0a", None, "incomplete string data"),
        (b"\xff\xff\xff\xffa", None, "incomplete string data"),
        (b"\x01\0\0\0a", 2, "expected 2 string elements, got 1"),
        (b"\x01\0\0\0a", 0, "unexpected number of string elements 1, expecting 0"),
        (b"", 1, "expected 1 string elements, got 0"),
    ],
)
def test_malformed_text(data: bytes, expected: int | None, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        deserialize_bytes(data, expected)


@given(st.binary(max_size=50), st.none() | st.integers(0, 5))
def test_any_bytes_are_text_or_refused(data: bytes, expected: int | None) -> None:
    try:
        elements = deserialize_bytes(data, expected)
    except ValueError:
        return
    assert serialize_bytes(elements) == data


# ------------------------------------------------------------------------------------------- regions of others


@pytest.fixture
def owner() -> Iterator[Region]:
    """A region that another process has made."""
    server = os.urandom(4).hex()
    region = Region.create(name_for(server, "w1", 0), 4 * PAGE)
    region.view[:8] = b"12345678"
    yield region
    region.close()
    sweep(server)


def at(region: Region, offset: int, size: int) -> TensorRef:
    return TensorRef("A", "UINT8", (size,), size, None, region.name, offset, 3, 9)


def test_tensors_are_seen_where_they_lie(owner: Region) -> None:
    regions = Regions()
    regions.open(owner.name)
    regions.open(owner.name)
    view = regions.view(at(owner, 2, 4))
    assert bytes(view) == b"3456"
    owner.view[2] = ord("x")
    assert bytes(view) == b"x456"
    assert regions.view(inline("A", "UINT8", (1,), b"z")) == b"z"
    private = regions.private(at(owner, 2, 4))
    private[1] = ord("y")
    assert (bytes(private), bytes(view)) == (b"xy56", b"x456")


def test_a_reference_beyond_its_region(owner: Region) -> None:
    regions = Regions()
    regions.open(owner.name)
    for offset, size in ((4 * PAGE, 1), (4 * PAGE - 1, 2), (1 << 60, 1), (0, 1 << 60)):
        with pytest.raises(ValueError, match="tensor 'A' reaches beyond its region"):
            regions.view(at(owner, offset, size))
        with pytest.raises(ValueError, match="tensor 'A' reaches beyond its region"):
            regions.private(at(owner, offset, size))


def test_a_region_that_is_not_there(owner: Region) -> None:
    regions = Regions()
    regions.open(owner.name + "0")
    regions.open("/etc/passwd")
    regions.close("anything")
    with pytest.raises(KeyError):
        regions.view(at(owner, 0, 1))
    with pytest.raises(KeyError):
        regions.private(at(owner, 0, 1))
    regions.mark_done(at(owner, 0, 1))


def test_what_was_read_is_marked(owner: Region) -> None:
    regions = Regions()
    regions.open(owner.name)
    regions.mark_done(inline("A", "UINT8", (1,), b"z"))
    assert owner.done(3) == 0
    regions.mark_done(at(owner, 0, 1))
    assert owner.done(3) == 9


def test_a_closed_region_is_unmapped_when_its_last_view_is_gone(owner: Region) -> None:
    def is_mapped() -> bool:
        with open("/proc/self/maps") as file:
            return file.read().count(owner.name) > 1  # the owner's own mapping is the first

    regions = Regions()
    regions.open(owner.name)
    view = regions.view(at(owner, 0, 4))
    array = as_array("UINT8", (4,), view)
    assert is_mapped()
    regions.close(owner.name)
    regions.retry_close()
    assert is_mapped()
    assert bytes(array) == b"1234", "it can be read as long as somebody looks at it"
    del view, array
    regions.retry_close()
    assert not is_mapped()
    assert (DIRECTORY / owner.name).exists()
