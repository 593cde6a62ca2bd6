"""Tensors as numpy arrays, over the bytes where they lie; the binary form of BYTES."""

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from shm.arena import Buffer
from shm.datatypes import element_count
from shm.ref import TensorRef
from shm.region import Region

NUMPY: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),  # numpy has no bfloat16: its bits
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BYTES": np.dtype(np.object_),
}

_DATATYPE = {dtype: name for name, dtype in NUMPY.items() if name != "BF16"}


def datatype_of(dtype: np.dtype[Any]) -> str | None:
    """The V2 datatype of a numpy dtype (`S` is BYTES), None when the protocol has none for it."""
    if dtype.kind == "S":
        return "BYTES"
    return _DATATYPE.get(dtype)


class Regions:
    """The regions of other processes that this process has mapped, by name."""

    def __init__(self) -> None:
        self._open: dict[str, Region] = {}
        self._closing: list[Region] = []

    def open(self, name: str) -> None:
        """Map an announced region; one that is gone already is left out (its owner died)."""
        if name not in self._open:
            try:
                self._open[name] = Region.open(name)
            except (FileNotFoundError, ValueError):
                return

    def close(self, name: str) -> None:
        """Unmap a region, as soon as nobody here holds a view of it (see `retry_close`)."""
        region = self._open.pop(name, None)
        if region is not None and not region.close():
            self._closing.append(region)

    def retry_close(self) -> None:
        """Unmap what was still viewed at its close; call about once a second."""
        self._closing = [region for region in self._closing if not region.close()]

    def view(self, ref: TensorRef) -> Buffer:
        """The tensor's bytes where they lie. Raises KeyError when the region is gone, ValueError when it is short."""
        if ref.data is not None:
            return ref.data
        view = self._open[ref.region].view[ref.offset : ref.offset + ref.byte_size]
        if len(view) != ref.byte_size:
            raise ValueError(f"tensor '{ref.name}' reaches beyond its region")
        return view

    def private(self, ref: TensorRef) -> memoryview:
        """A copy-on-write mapping of a tensor that lies in a region. Raises KeyError and ValueError as `view`."""
        region = self._open[ref.region]
        if ref.offset + ref.byte_size > region.size:
            raise ValueError(f"tensor '{ref.name}' reaches beyond its region")
        return region.private(ref.offset, ref.byte_size)

    def mark_done(self, ref: TensorRef) -> None:
        """Give an output block back to its owner; nothing for inline tensors and vanished regions."""
        if ref.data is None and ref.region in self._open:
            self._open[ref.region].mark_done(ref.slot, ref.generation)


def as_array(datatype: str, shape: Sequence[int], data: Buffer) -> np.ndarray[Any, Any]:
    """A numpy view of a tensor in binary form (BYTES: a new object array of `bytes`). Raises ValueError."""
    if datatype == "BYTES":
        return deserialize_bytes(data, element_count(shape)).reshape(tuple(shape))
    return np.frombuffer(data, dtype=NUMPY[datatype]).reshape(tuple(shape))


class MalformedBytes(ValueError):
    """The binary form of a BYTES tensor is none: `what` is wrong, and (`details`) how. Between them goes the place."""

    def __init__(self, what: str, details: str) -> None:
        super().__init__(what + details)
        self.what = what
        self.details = details


def deserialize_bytes(data: Buffer, expected: int | None = None) -> np.ndarray[Any, Any]:
    """The elements of a BYTES tensor, each with a 4-byte little-endian length before it. Raises MalformedBytes."""
    view = memoryview(data)
    elements: list[bytes] = []
    position, end = 0, len(view)
    while position < end:
        if end - position < 4:
            raise MalformedBytes(
                "incomplete string length indicator",
                f", expecting 4 bytes but only {end - position} bytes available. Please make sure the string length "
                "indicator is in one buffer.",
            )
        (length,) = struct.unpack_from("<I", view, position)
        position += 4
        if end - position < length:
            raise MalformedBytes(
                "incomplete string data",
                f", expecting string of length {length} but only {end - position} bytes available",
            )
        elements.append(bytes(view[position : position + length]))
        position += length
    if expected is not None and len(elements) < expected:
        raise MalformedBytes(f"expected {expected} string elements", f", got {len(elements)}")
    if expected is not None and len(elements) > expected:
        raise MalformedBytes(f"unexpected number of string elements {len(elements)}", f", expecting {expected}")
    array = np.empty(len(elements), dtype=np.object_)
    array[:] = elements
    return array


def serialize_bytes(array: np.ndarray[Any, Any]) -> bytes:
    """The binary form of a BYTES tensor: `bytes` elements as they are, anything else as UTF-8 of its `str`."""
    parts: list[bytes] = []
    for element in array.reshape(-1).tolist() if array.dtype.kind == "S" else array.flat:
        data = element if isinstance(element, bytes) else str(element).encode()
        parts.append(struct.pack("<I", len(data)))
        parts.append(data)
    return b"".join(parts)


def binary_form(datatype: str, array: np.ndarray[Any, Any]) -> Buffer:
    """An array's bytes in the protocol's binary form, without a copy where it lies in C order already."""
    if datatype == "BYTES":
        return serialize_bytes(array)
    contiguous = np.ascontiguousarray(array, dtype=NUMPY[datatype])
    return contiguous.reshape(-1).view(np.uint8).data
