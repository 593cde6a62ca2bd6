"""First-fit allocation of ranges: pure arithmetic, no memory."""

from bisect import bisect_left


class FreeList:
    """The free ranges of `[0, size)`, lowest address first, so that a lightly used arena stays small and warm."""

    def __init__(self, size: int) -> None:
        """Everything is free."""
        self.size = size
        self._starts = [0] if size else []
        self._sizes = [size] if size else []

    def allocate(self, size: int) -> int | None:
        """Take `size` units; the offset, or None when no free range is long enough."""
        for i, free in enumerate(self._sizes):
            if free >= size:
                start = self._starts[i]
                if free == size:
                    del self._starts[i], self._sizes[i]
                else:
                    self._starts[i] += size
                    self._sizes[i] -= size
                return start
        return None

    def release(self, start: int, size: int) -> None:
        """Give back what `allocate` handed out; neighbours merge."""
        i = bisect_left(self._starts, start)
        if i < len(self._starts) and start + size == self._starts[i]:
            size += self._sizes[i]
            del self._starts[i], self._sizes[i]
        if i > 0 and self._starts[i - 1] + self._sizes[i - 1] == start:
            self._sizes[i - 1] += size
        else:
            self._starts.insert(i, start)
            self._sizes.insert(i, size)

    def ranges(self) -> list[tuple[int, int]]:
        """The free ranges as (start, size), ascending."""
        return list(zip(self._starts, self._sizes, strict=True))

    @property
    def is_empty(self) -> bool:
        """True when nothing is allocated."""
        return sum(self._sizes) == self.size
