"""TensorRef: where a tensor lies. It travels over the fabric instead of the tensor's bytes."""

from typing import Any, NamedTuple


class TensorRef(NamedTuple):
    """A tensor's metadata and the place of its bytes.

    `data` holds the bytes of a tiny tensor inline; else it is None and they lie at `offset` in `region` (both
    0 / "" for inline). `slot` and `generation` name the block that holds them, for the store that gives an
    output block back to its owner (`shm.arena`).
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    byte_size: int
    data: bytes | None
    region: str = ""
    offset: int = 0
    slot: int = 0
    generation: int = 0

    @staticmethod
    def from_wire(fields: Any) -> "TensorRef":
        """Check and rebuild a reference that came over the fabric. Raises ValueError."""
        try:
            name, datatype, shape, byte_size, data, region, offset, slot, generation = fields
        except (TypeError, ValueError):
            raise ValueError("a TensorRef has nine fields") from None
        if not (
            type(name) is str
            and type(datatype) is str
            and type(region) is str
            and (data is None or type(data) is bytes)
            and type(byte_size) is type(offset) is type(slot) is type(generation) is int
            and byte_size >= 0
            and offset >= 0
        ):
            raise ValueError("a TensorRef field has the wrong type")
        shape = tuple(shape)
        for dim in shape:
            if type(dim) is not int:
                raise ValueError("a TensorRef's shape is made of integers")
        return TensorRef(name, datatype, shape, byte_size, data, region, offset, slot, generation)
