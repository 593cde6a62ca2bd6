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
            ref = TensorRef(*fields)
        except TypeError:
            raise ValueError("a TensorRef has nine fields") from None
        if tuple(map(type, ref)) not in _TYPES:
            raise ValueError("a TensorRef field has the wrong type")
        if ref.byte_size < 0 or ref.offset < 0:
            raise ValueError("a TensorRef has a negative size or offset")
        for dim in ref.shape:
            if type(dim) is not int:
                raise ValueError("a TensorRef's shape is made of integers")
        return ref


_TYPES = {(str, str, tuple, int, data, str, int, int, int) for data in (bytes, type(None))}
