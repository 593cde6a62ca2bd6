"""An arena: the regions one process owns for one purpose, cut into blocks.

The owner allocates and releases. A block that another process reads is given back by that reader with a store
into the region's slot table (`Region.mark_done`), without a message; `collect` finds such blocks.
Memory is reserved only for ranges about to be used and returned when a range has been idle, so a large arena on
an idle server costs nothing.
"""

import errno
from array import array
from collections.abc import Callable, Iterator
from typing import NamedTuple

from shm import copies
from shm.freelist import FreeList
from shm.ref import TensorRef
from shm.region import PAGE, SLOTS, Region, free_bytes, unlink

CHUNK = 16 * PAGE
"""Memory is reserved and returned in chunks of this many bytes."""
USABLE_SHARE = 0.8
"""All arenas together leave the rest of /dev/shm free."""
INLINE = 1024
"""Tensors of up to this many bytes travel inside the message: that is cheaper than a block."""

Buffer = bytes | bytearray | memoryview

_ALL_SLOTS = array("H", range(SLOTS - 1, -1, -1))


class ArenaFull(Exception):
    """No room now. `is_final` when waiting cannot help: the block is larger than the arena may ever be."""

    def __init__(self, message: str, is_final: bool) -> None:
        """`message` names the setting that limits."""
        super().__init__(message)
        self.is_final = is_final


class ArenaSettings(NamedTuple):
    """The backend's shm settings in bytes; `max_byte_size` 0 leaves only the limit of /dev/shm itself."""

    backend: str
    default_byte_size: int
    growth_byte_size: int
    max_byte_size: int


class Block(NamedTuple):
    """One allocation: `size` bytes (whole pages) at `offset` of `region`, held for the peer `reader`."""

    arena: "Arena"
    region: Region
    offset: int
    size: int
    slot: int
    generation: int
    reader: str

    def view(self, start: int, size: int) -> memoryview:
        """`size` bytes from `start` of the block."""
        begin = self.offset + start
        return self.region.view[begin : begin + size]

    def ref(self, name: str, datatype: str, shape: tuple[int, ...], start: int, size: int) -> TensorRef:
        """The reference of a tensor that lies at `start` of the block."""
        offset = self.offset + start
        return TensorRef(name, datatype, shape, size, None, self.region.name, offset, self.slot, self.generation)

    def store(self, name: str, datatype: str, shape: tuple[int, ...], data: Buffer) -> TensorRef:
        """Copy a tensor's bytes to the start of the block and return its reference."""
        size = len(data)
        self.view(0, size)[:] = data
        copies.count("arena", size)
        return self.ref(name, datatype, shape, 0, size)

    def release(self) -> None:
        """The owner gives the block back, once."""
        self.arena.release(self)


def inline(name: str, datatype: str, shape: tuple[int, ...], data: Buffer) -> TensorRef:
    """The reference of a tensor of at most INLINE bytes, which carries them itself."""
    return TensorRef(name, datatype, shape, len(data), bytes(data))


class _Extent:
    """One region of an arena with the books about it. Pages are the unit."""

    def __init__(self, region: Region, free_bytes: Callable[[], tuple[int, int]]) -> None:
        self.region = region
        self.free_bytes = free_bytes
        self.free = FreeList(region.size // PAGE)
        self.slots = _ALL_SLOTS[:]
        self.reserved = bytearray(-(-region.size // CHUNK))
        self.high = 0  # highest byte in use since the last trim
        self.previous_high = 0

    def chunks(self, offset: int, size: int) -> range:
        return range(offset // CHUNK, -(-(offset + size) // CHUNK))

    def reserve(self, offset: int, size: int) -> None:
        """Back the range with memory. Raises OSError(ENOSPC), with nothing kept, when the share is used up."""
        missing = [c for c in self.chunks(offset, size) if not self.reserved[c]]
        if missing:
            free, total = self.free_bytes()
            if free - len(missing) * CHUNK < total * (1 - USABLE_SHARE):
                raise OSError(errno.ENOSPC, "the share of /dev/shm for arenas is used up")
            first, last = missing[0], missing[-1] + 1
            self.region.reserve(first * CHUNK, min(last * CHUNK, self.region.size) - first * CHUNK)
            for c in missing:
                self.reserved[c] = 1
        self.high = max(self.high, offset + size)

    def trim(self) -> None:
        """Return reserved chunks that are free and above what was used lately (this and the last interval)."""
        self.punch(max(self.high, self.previous_high))
        self.previous_high, self.high = self.high, 0

    def punch(self, floor: int) -> None:
        """Return reserved chunks that are free, from the byte `floor` on."""
        for start, pages in self.free.ranges():
            begin = max(start * PAGE, floor)
            first, last = -(-begin // CHUNK), (start + pages) * PAGE // CHUNK
            if (start + pages) * PAGE == self.region.size:
                last = len(self.reserved)
            if any(self.reserved[first:last]):
                end = min(last * CHUNK, self.region.size)
                self.region.punch(first * CHUNK, end - first * CHUNK)
                self.reserved[first:last] = bytes(last - first)


class Arena:
    """Blocks for one producing process. Not thread-safe."""

    def __init__(
        self,
        settings: ArenaSettings,
        names: Iterator[str],
        announce: Callable[[str], None],
        forget: Callable[[str], None],
        free_bytes: Callable[[], tuple[int, int]] = free_bytes,
    ) -> None:
        """`names` yields fresh region names; `announce` / `forget` are told of regions that come and go.

        `free_bytes` tells how many bytes of memory are free, and how many there are in all.
        """
        self.settings = settings
        self._names = names
        self._announce = announce
        self._forget = forget
        self._free_bytes = free_bytes
        self._extents: list[_Extent] = []
        self._lent: dict[tuple[str, int], tuple[_Extent, Block]] = {}
        self._generation = 0
        self._closing: list[Region] = []

    def open(self) -> None:
        """Make the first region, of the default size. Raises OSError."""
        self._add(self.settings.default_byte_size)

    def allocate(self, size: int, reader: str = "") -> Block:
        """A block of at least `size` bytes, its memory reserved. Raises ArenaFull."""
        pages = -(-size // PAGE) or 1
        self._collect_oldest()
        block = self._allocate(pages, reader)
        if block is None and self.collect():
            block = self._allocate(pages, reader)
        if block is None:
            self._grow(pages * PAGE)
            block = self._allocate(pages, reader)
        if block is None:
            raise self._full(pages * PAGE)
        return block

    def place(  # a tensor's parts, its reader
        self, name: str, datatype: str, shape: tuple[int, ...], data: Buffer, blocks: list[Block], reader: str = ""
    ) -> TensorRef:
        """Put a tensor where its reader can see it: into the reference when tiny, else into a block, added to `blocks`.

        Raises ArenaFull.
        """
        if len(data) <= INLINE:
            return inline(name, datatype, shape, data)
        block = self.allocate(len(data), reader)
        blocks.append(block)
        return block.store(name, datatype, shape, data)

    def release(self, block: Block) -> None:
        """The owner gives a block back. Once for each block."""
        extent, _ = self._lent.pop((block.region.name, block.slot))
        extent.free.release(block.offset // PAGE, block.size // PAGE)
        extent.slots.append(block.slot)

    def pass_on(self, region: str, slot: int, generation: int, reader: str) -> None:
        """A block that was kept (reader `""`) goes to a reader, or back when that is `""`; nothing if it is not out."""
        extent, block = self._lent.get((region, slot), (None, None))
        if extent is None or block is None or block.generation != generation:
            return
        if reader:
            self._lent[region, slot] = extent, block._replace(reader=reader)
        else:
            self.release(block)

    def collect(self) -> int:
        """Take back the blocks that their readers have marked done. Returns how many."""
        done = [b for _, b in self._lent.values() if b.reader and b.region.done(b.slot) == b.generation]
        for block in done:
            self.release(block)
        return len(done)

    def _collect_oldest(self) -> None:
        """Most blocks come back in the order in which they went: use their memory again while it is warm."""
        while self._lent:
            _, block = next(iter(self._lent.values()))
            if not block.reader or block.region.done(block.slot) != block.generation:
                return
            self.release(block)

    def reader_gone(self, reader: str) -> None:
        """The process `reader` is dead: it cannot read its blocks any more."""
        for block in [b for _, b in self._lent.values() if b.reader == reader]:
            self.release(block)

    def trim(self) -> None:
        """Return idle memory; call about once a second."""
        self.collect()
        for extent in self._extents:
            extent.trim()
        for extent in self._extents[1:]:
            if extent.free.is_empty and not extent.previous_high:
                self._extents.remove(extent)
                self._forget(extent.region.name)
                unlink(extent.region.name)
                self._closing.append(extent.region)
        self._closing = [region for region in self._closing if not region.close()]

    @property
    def byte_size(self) -> int:
        """Bytes mapped for this arena (reserved or not)."""
        return sum(extent.region.size for extent in self._extents)

    @property
    def used_byte_size(self) -> int:
        """Bytes in blocks that are out."""
        return sum(block.size for _, block in self._lent.values())

    @property
    def lent_blocks(self) -> int:
        """Blocks that are out."""
        return len(self._lent)

    def _allocate(self, pages: int, reader: str) -> Block | None:
        """A block in one of the regions; None when none has room. Raises ArenaFull when there is no memory for it."""
        try:
            return self._place(pages, reader)
        except OSError:
            self.collect()
            for extent in self._extents:
                extent.punch(0)
        try:
            return self._place(pages, reader)
        except OSError:
            raise self._no_memory(pages * PAGE) from None

    def _place(self, pages: int, reader: str) -> Block | None:
        for extent in self._extents:
            if not extent.slots:
                continue
            start = extent.free.allocate(pages)
            if start is None:
                continue
            offset, size = start * PAGE, pages * PAGE
            try:
                extent.reserve(offset, size)
            except OSError:
                extent.free.release(start, pages)
                raise
            self._generation += 1
            block = Block(self, extent.region, offset, size, extent.slots.pop(), self._generation, reader)
            self._lent[block.region.name, block.slot] = extent, block
            return block
        return None

    def _grow(self, needed: int) -> None:
        size = max(self.settings.growth_byte_size, needed)
        if self.settings.max_byte_size:
            size = min(size, self.settings.max_byte_size - self.byte_size)
        if size < needed:
            return
        if needed > self._free_bytes()[1] * USABLE_SHARE:
            raise self._no_memory(needed)
        try:
            self._add(size)
        except (OSError, OverflowError) as error:
            text = (
                f"cannot make room for {size} bytes in the shared memory of backend '{self.settings.backend}': {error}"
            )
            raise ArenaFull(text, is_final=False) from None

    def _add(self, size: int) -> None:
        region = Region.create(next(self._names), size)
        self._extents.append(_Extent(region, self._free_bytes))
        self._announce(region.name)

    def _full(self, size: int) -> ArenaFull:
        s = self.settings
        limit = max(s.max_byte_size, s.default_byte_size)
        return ArenaFull(
            f"no room for {size} bytes in the shared memory of backend '{s.backend}': its limit of {limit} bytes is "
            f"in use, raise shm-max-byte-size (--backend-config={s.backend},shm-max-byte-size=N)",
            is_final=size > limit,
        )

    def _no_memory(self, size: int) -> ArenaFull:
        free, total = self._free_bytes()
        return ArenaFull(
            f"no room for {size} bytes in the shared memory of backend '{self.settings.backend}': /dev/shm has {free} "
            f"of {total} bytes free and {1 - USABLE_SHARE:.0%} stay unused, enlarge it (in Docker --shm-size) or "
            f"lower shm-default-byte-size or shm-max-byte-size",
            is_final=size > total * USABLE_SHARE,
        )
