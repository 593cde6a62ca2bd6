"""The datatypes of the V2 inference protocol and the size of one element of each."""

from collections.abc import Sequence

ELEMENT_SIZE = {
    "BOOL": 1,
    "UINT8": 1,
    "UINT16": 2,
    "UINT32": 4,
    "UINT64": 8,
    "INT8": 1,
    "INT16": 2,
    "INT32": 4,
    "INT64": 8,
    "FP16": 2,
    "BF16": 2,
    "FP32": 4,
    "FP64": 8,
}
"""Bytes per element. BYTES is missing: its elements carry their own 4-byte little-endian length."""

DATATYPES = frozenset(ELEMENT_SIZE) | {"BYTES"}


ENDLESS = 1 << 63
"""More than any tensor has; counting stops here, since the product of a long shape takes for ever."""


def element_count(shape: Sequence[int]) -> int:
    """How many elements a tensor of `shape` has, ENDLESS at the most; a scalar (`[]`) has one."""
    count = 1
    for dim in shape:
        count *= dim
        if abs(count) >= ENDLESS:
            return 0 if 0 in shape else ENDLESS
    return count


def expected_byte_size(datatype: str, shape: Sequence[int]) -> int | None:
    """Bytes of a tensor in binary form, None for BYTES, whose size its shape does not tell."""
    size = ELEMENT_SIZE.get(datatype)
    return None if size is None else size * element_count(shape)
