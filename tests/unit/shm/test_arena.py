"""Arenas: blocks that never overlap, memory that is there when it is used and gone when it is not, refusals."""

import itertools
import os
from collections.abc import Callable, Iterator

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from shm import copies
from shm.arena import CHUNK, INLINE, Arena, ArenaFull, ArenaSettings, Block, inline
from shm.region import DIRECTORY, PAGE, SLOTS, TABLE, Region, name_for, names_of, sweep

MEGABYTE = 1 << 20
PLENTY = (100 * MEGABYTE, 100 * MEGABYTE)


class Made:
    """An arena, and what it says to its readers."""

    def __init__(
        self,
        server: str,
        default: int = MEGABYTE,
        growth: int = MEGABYTE,
        limit: int = 0,
        free: Callable[[], tuple[int, int]] = lambda: PLENTY,
    ) -> None:
        self.server = server
        self.announced: list[str] = []
        self.forgotten: list[str] = []
        names = (name_for(server, "w1", number) for number in itertools.count())
        settings = ArenaSettings("python", default, growth, limit)
        self.arena = Arena(settings, names, self.announced.append, self.forgotten.append, free)
        self.arena.open()

    @property
    def memory(self) -> int:
        """Bytes of memory behind all regions, less their tables."""
        return sum((DIRECTORY / name).stat().st_blocks * 512 - TABLE for name in names_of(self.server, "w1"))


@pytest.fixture
def server() -> Iterator[str]:
    name = os.urandom(4).hex()
    yield name
    sweep(name)


def done(block: Block) -> None:
    """What the reader of a block does."""
    region = Region.open(block.region.name)
    region.mark_done(block.slot, block.generation)
    region.close()


def test_an_idle_arena_costs_nothing(server: str) -> None:
    made = Made(server, default=4 << 30)
    assert made.memory == 0
    assert made.arena.byte_size == 4 << 30
    assert made.announced == [name_for(server, "w1", 0)]


def test_blocks_have_memory_and_are_whole_pages(server: str) -> None:
    made = Made(server)
    block = made.arena.allocate(5 * PAGE + 1)
    assert block.size == 6 * PAGE
    assert made.memory >= block.size
    assert made.arena.allocate(0).size == PAGE
    assert made.arena.used_byte_size == 7 * PAGE
    assert made.arena.lent_blocks == 2
    block.release()
    assert made.arena.used_byte_size == PAGE
    with pytest.raises(KeyError):
        block.release()


def test_a_tensor_is_copied_once_and_described(server: str) -> None:
    made = Made(server)
    block = made.arena.allocate(100)
    before = copies.by_place.get("arena", 0)
    ref = block.store("A", "UINT8", (5,), b"hello")
    assert copies.by_place["arena"] - before == 5
    assert ref == ("A", "UINT8", (5,), 5, None, block.region.name, block.offset, block.slot, block.generation)
    assert bytes(block.view(0, 5)) == b"hello"
    assert block.ref("B", "UINT8", (2,), 64, 2).offset == block.offset + 64
    small = inline("A", "UINT8", (5,), memoryview(b"hello"))
    assert (small.data, small.region, small.byte_size) == (b"hello", "", 5)
    assert INLINE == 1024


def test_memory_is_returned_when_it_has_not_been_used_for_two_looks(server: str) -> None:
    made = Made(server, default=8 * MEGABYTE)
    block = made.arena.allocate(4 * MEGABYTE)
    low = made.arena.allocate(PAGE)
    block.release()
    made.arena.trim()
    assert made.memory >= 4 * MEGABYTE, "it is likely to be used again"
    made.arena.trim()
    made.arena.trim()
    assert made.memory <= CHUNK, "all but the chunk of the block that is still out"
    assert low.view(0, 4) == bytes(4)
    low.release()
    for _ in range(3):
        made.arena.trim()
    assert made.memory == 0


def test_memory_that_is_used_again_and_again_stays(server: str) -> None:
    made = Made(server, default=8 * MEGABYTE)
    for _ in range(5):
        made.arena.allocate(4 * MEGABYTE).release()
        made.arena.trim()
        assert made.memory >= 4 * MEGABYTE


def test_an_arena_grows_and_shrinks_again(server: str) -> None:
    made = Made(server, default=MEGABYTE, growth=2 * MEGABYTE)
    first = made.arena.allocate(MEGABYTE)
    second = made.arena.allocate(MEGABYTE)
    assert made.arena.byte_size == 3 * MEGABYTE
    third = made.arena.allocate(MEGABYTE)
    assert made.arena.byte_size == 3 * MEGABYTE
    large = made.arena.allocate(10 * MEGABYTE)
    assert made.arena.byte_size == 13 * MEGABYTE
    assert len(made.announced) == 3
    for block in (first, second, third, large):
        block.release()
    view = second.region.view[:1]
    for _ in range(3):
        made.arena.trim()
    assert made.forgotten == made.announced[1:], "the first region stays"
    assert names_of(server, "w1") == made.announced[:1]
    assert made.memory == 0
    view.release()
    made.arena.trim()


def test_many_small_blocks_need_another_region(server: str) -> None:
    made = Made(server, default=SLOTS * PAGE + MEGABYTE, growth=MEGABYTE)
    blocks = [made.arena.allocate(1) for _ in range(SLOTS + 1)]
    assert blocks[-1].region is not blocks[0].region
    assert len({(block.region.name, block.slot) for block in blocks}) == len(blocks)


# ------------------------------------------------------------------------------------------- readers


def test_a_block_comes_back_when_its_reader_has_marked_it(server: str) -> None:
    made = Made(server)
    block, other = made.arena.allocate(1, "h1"), made.arena.allocate(1, "h1")
    mine = made.arena.allocate(1)
    assert made.arena.collect() == 0
    done(other)
    done(mine)
    assert made.arena.collect() == 1, "the reader's word counts for blocks that have one"
    done(block)
    made.arena.trim()
    assert made.arena.lent_blocks == 1


def test_an_old_mark_does_not_free_a_new_block(server: str) -> None:
    made = Made(server)
    old = made.arena.allocate(1, "h1")
    done(old)
    assert made.arena.collect() == 1
    new = made.arena.allocate(1, "h1")
    assert (new.slot, new.offset) == (old.slot, old.offset)
    assert made.arena.collect() == 0
    done(new)
    assert made.arena.collect() == 1


def test_blocks_that_were_read_are_used_again_at_once(server: str) -> None:
    made = Made(server)
    offsets = set()
    for _ in range(50):
        block = made.arena.allocate(100_000, "h1")
        offsets.add(block.offset)
        done(block)
    assert len(offsets) <= 2, "the arena stays warm"


def test_the_blocks_of_a_dead_reader_come_back(server: str) -> None:
    made = Made(server)
    for reader in ("h1", "h1", "g1", ""):
        made.arena.allocate(1, reader)
    made.arena.reader_gone("h1")
    assert made.arena.lent_blocks == 2
    made.arena.reader_gone("h1")
    assert made.arena.lent_blocks == 2


# ------------------------------------------------------------------------------------------- refusals


def refusal(arena: Arena, size: int) -> ArenaFull:
    with pytest.raises(ArenaFull) as caught:
        arena.allocate(size)
    return caught.value


def test_the_limit_of_a_backend(server: str) -> None:
    made = Made(server, default=MEGABYTE, growth=MEGABYTE, limit=2 * MEGABYTE)
    block = made.arena.allocate(MEGABYTE)
    made.arena.allocate(MEGABYTE)
    error = refusal(made.arena, 1)
    assert "no room for 4096 bytes in the shared memory of backend 'python': its limit of 2097152 bytes" in str(error)
    assert "--backend-config=python,shm-max-byte-size=N" in str(error)
    assert not error.is_final, "waiting helps"
    block.release()
    made.arena.allocate(MEGABYTE)
    assert refusal(made.arena, 3 * MEGABYTE).is_final, "waiting does not help"


def test_growth_ends_at_the_limit(server: str) -> None:
    made = Made(server, default=MEGABYTE, growth=8 * MEGABYTE, limit=3 * MEGABYTE)
    made.arena.allocate(MEGABYTE)
    made.arena.allocate(2 * MEGABYTE)
    assert made.arena.byte_size == 3 * MEGABYTE


def test_a_fifth_of_the_memory_stays_free(server: str) -> None:
    free = [100 * MEGABYTE, 100 * MEGABYTE]
    made = Made(server, default=4 * MEGABYTE, free=lambda: (free[0], free[1]))
    made.arena.allocate(MEGABYTE)
    free[0] = 20 * MEGABYTE
    error = refusal(made.arena, MEGABYTE)
    assert "/dev/shm has 20971520 of 104857600 bytes free and 20% stay unused" in str(error)
    assert "--shm-size" in str(error)
    assert not error.is_final
    assert refusal(made.arena, 81 * MEGABYTE).is_final
    free[0] = 22 * MEGABYTE
    made.arena.allocate(MEGABYTE)
    assert made.arena.lent_blocks == 2


def test_when_memory_is_short_what_is_idle_is_used_first(server: str) -> None:
    free = [100 * MEGABYTE, 100 * MEGABYTE]
    made = Made(server, default=8 * MEGABYTE, free=lambda: (free[0], free[1]))
    read, unread = made.arena.allocate(MEGABYTE, "h1"), made.arena.allocate(MEGABYTE, "h1")
    done(read)
    free[0] = 20 * MEGABYTE
    assert made.arena.allocate(MEGABYTE, "h1").offset == read.offset, "its memory is there already"
    assert unread.view(0, 1) == bytes(1)


def test_when_memory_is_short_what_is_idle_is_returned(server: str) -> None:
    size = 8 * MEGABYTE
    made = Made(server, default=size)

    def free() -> tuple[int, int]:
        return 20 * MEGABYTE + 2 * MEGABYTE - made.memory, 100 * MEGABYTE

    made.arena = Arena(made.arena.settings, iter([name_for(server, "w1", 9)]), lambda _: None, lambda _: None, free)
    made.arena.open()
    first, second = made.arena.allocate(MEGABYTE), made.arena.allocate(MEGABYTE - CHUNK)
    first.release()
    assert made.memory > MEGABYTE
    third = made.arena.allocate(MEGABYTE + PAGE)
    assert third.offset > second.offset, "it does not fit into the hole, whose memory went back"
    assert made.memory <= 2 * MEGABYTE


def test_a_region_that_cannot_be_made_is_a_refusal(server: str) -> None:
    made = Made(server)
    (DIRECTORY / name_for(server, "w1", 1)).touch()
    assert "cannot make room for 2097152 bytes" in str(refusal(made.arena, 2 * MEGABYTE))
    assert made.arena.allocate(2 * MEGABYTE), "the next name is free"


# ------------------------------------------------------------------------------------------- whatever comes


class ArenaMachine(RuleBasedStateMachine):
    """Allocates, reads, releases, trims in any order; every block keeps its bytes as long as it is out."""

    def __init__(self) -> None:
        super().__init__()
        self.server = os.urandom(4).hex()
        self.made = Made(self.server, default=16 * CHUNK, growth=8 * CHUNK, limit=40 * CHUNK)
        self.blocks: list[tuple[Block, bytes]] = []
        self.marked: list[Block] = []

    @rule(
        size=st.integers(0, 10 * CHUNK),
        reader=st.sampled_from(["", "h1", "g1"]),
        mark=st.binary(min_size=1, max_size=8),
    )
    def allocate(self, size: int, reader: str, mark: bytes) -> None:
        try:
            block = self.made.arena.allocate(size, reader)
        except ArenaFull:
            assert size > CHUNK or self.blocks
            return
        assert block.size >= size
        content = (mark * (block.size // len(mark) + 1))[: block.size]
        block.view(0, block.size)[:] = content
        self.blocks.append((block, content))

    @rule(index=st.integers(0, 100))
    def give_back(self, index: int) -> None:
        if self.blocks:
            self._give_back(*self.blocks.pop(index % len(self.blocks)))

    def _give_back(self, block: Block, content: bytes) -> None:
        assert block.view(0, block.size) == content
        if block.reader:
            done(block)
        else:
            block.release()

    @rule()
    def trim(self) -> None:
        self.made.arena.trim()

    @rule(reader=st.sampled_from(["h1", "g1"]))
    def reader_gone(self, reader: str) -> None:
        self.blocks = [(block, content) for block, content in self.blocks if block.reader != reader]
        self.made.arena.reader_gone(reader)

    @invariant()
    def bounds_hold(self) -> None:
        assert self.made.arena.byte_size <= 40 * CHUNK
        assert self.made.arena.lent_blocks >= len(self.blocks)

    def teardown(self) -> None:
        for block, content in self.blocks:
            self._give_back(block, content)
        for _ in range(4):
            self.made.arena.trim()
        assert self.made.arena.lent_blocks == 0
        assert self.made.arena.byte_size == 16 * CHUNK
        assert self.made.memory == 0
        sweep(self.server)


ArenaMachine.TestCase.settings = settings(stateful_step_count=30)
TestArena = ArenaMachine.TestCase
