"""Ranges that are taken and given back never overlap, merge, and are all there in the end."""

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from shm.freelist import FreeList

SIZE = 100


def test_the_lowest_range_that_is_long_enough_is_taken() -> None:
    free = FreeList(10)
    assert [free.allocate(3), free.allocate(4), free.allocate(3), free.allocate(1)] == [0, 3, 7, None]
    free.release(0, 3)
    free.release(7, 3)
    assert free.ranges() == [(0, 3), (7, 3)]
    assert free.allocate(4) is None
    assert free.allocate(2) == 0
    free.release(3, 4)
    assert free.ranges() == [(2, 8)]
    free.release(0, 2)
    assert free.is_empty


def test_nothing_can_be_taken_from_nothing() -> None:
    assert FreeList(0).allocate(1) is None
    assert FreeList(0).is_empty


class FreeListMachine(RuleBasedStateMachine):
    """Allocates and releases in any order, with a map of every unit beside it."""

    taken = Bundle("taken")

    def __init__(self) -> None:
        super().__init__()
        self.free = FreeList(SIZE)
        self.map = [False] * SIZE

    @rule(target=taken, size=st.integers(1, SIZE // 2))
    def allocate(self, size: int) -> tuple[int, int]:
        start = self.free.allocate(size)
        gaps = [i for i in range(SIZE - size + 1) if not any(self.map[i : i + size])]
        assert start == (gaps[0] if gaps else None)
        if start is None:
            return (0, 0)
        self.map[start : start + size] = [True] * size
        return (start, size)

    @rule(block=consumes(taken))
    def release(self, block: tuple[int, int]) -> None:
        start, size = block
        if size:
            self.free.release(start, size)
            self.map[start : start + size] = [False] * size

    @invariant()
    def ranges_are_the_gaps(self) -> None:
        gaps: list[tuple[int, int]] = []
        for index, is_taken in enumerate([*self.map, True]):
            if not is_taken and (index == 0 or self.map[index - 1]):
                gaps.append((index, 0))
            if not is_taken:
                gaps[-1] = (gaps[-1][0], gaps[-1][1] + 1)
        assert self.free.ranges() == gaps
        assert self.free.is_empty == (not any(self.map))


FreeListMachine.TestCase.settings = settings(stateful_step_count=40)
TestFreeList = FreeListMachine.TestCase
