"""TensorRef: where a tensor lies. It travels over the fabric instead of the tensor's bytes."""

from typing import Annotated, NamedTuple, TypeAlias

from msgspec import Meta

Size: TypeAlias = Annotated[int, Meta(ge=0)]
"""A number of bytes; a negative one does not get through the decoder of messages."""


class TensorRef(NamedTuple):
    """A tensor's metadata and the place of its bytes.

    `data` holds the bytes of a tiny tensor inline; else it is None and they lie at `offset` in `region` (both
    0 / "" for inline). `slot` and `generation` name the block that holds them, for the store that gives an
    output block back to its owner (`shm.arena`).
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    byte_size: Size
    data: bytes | None
    region: str = ""
    offset: Size = 0
    slot: int = 0
    generation: int = 0
