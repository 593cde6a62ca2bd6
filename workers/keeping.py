"""Copies of responses for the response cache, in an arena of their own: they stay until the broker forgets them."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence

from broker.messages import Forget, Item, Keep, Kept, Message, RegionClosed, RegionOpened
from shm.arena import INLINE, Arena, ArenaFull, ArenaSettings, Block, inline
from shm.ref import TensorRef
from shm.region import free_bytes
from workers.outcome import Again, Outcome, Output, Response

MEBIBYTE = 1 << 20
SPARED = 0.3
"""The share of /dev/shm that the cache leaves to arenas, besides what these leave free themselves."""


class Keeping:
    """The one owner of the cached copies; the main thread keeps, any thread may forget."""

    def __init__(
        self,
        names: Iterator[str],
        send: Callable[[Message], None],
        requested: Callable[[Item, Response], list[Output]],
    ) -> None:
        """There is no memory before the first copy that needs some; `names` are of its regions.

        `requested` chooses the outputs of a response that are for its request.
        """
        self._requested = requested
        self._names = names
        self._send = send
        self._arena: Arena | None = None
        self._blocks: dict[int, Block] = {}  # by generation
        self._wanted: dict[int, Keep] = {}  # by attempt
        self._lock = threading.Lock()

    def want(self, message: Keep) -> None:
        """Responses of an attempt that is to come are wanted."""
        self._wanted[message.attempt] = message

    def keep(self, attempt: int, items: Sequence[Item], outcomes: Sequence[Outcome | Again | None]) -> None:
        """Keep what is wanted of an attempt, and tell the broker; what there is no room for is not kept."""
        wanted = self._wanted.pop(attempt, None)
        for index in wanted.items if wanted is not None else ():
            outcome = outcomes[index]
            if wanted is not None and isinstance(outcome, Response):
                outputs = self._requested(items[index], outcome)
                if sum(len(output.data) for output in outputs) <= wanted.limit:
                    self._copy(attempt, index, outputs, outcome)

    def forget(self, message: Forget) -> None:
        """The cache does not need these blocks any more."""
        with self._lock:
            for generation in message.generations:
                block = self._blocks.pop(generation, None)
                if block is not None:
                    block.release()

    def trim(self) -> tuple[int, int]:
        """Return idle memory, about once a second. Bytes in use, and bytes mapped."""
        with self._lock:
            if self._arena is None:
                return 0, 0
            self._arena.trim()
            return self._arena.used_byte_size, self._arena.byte_size

    def _copy(self, attempt: int, index: int, outputs: Sequence[Output], response: Response) -> None:
        began = time.monotonic_ns()
        blocks: list[Block] = []
        with self._lock:
            try:
                refs = tuple([self._store(output, blocks) for output in outputs])
            except (ArenaFull, OSError):
                for block in blocks:
                    block.release()
                return
            self._blocks.update({block.generation: block for block in blocks})
        self._send(Kept(attempt, index, refs, response.parameters, time.monotonic_ns() - began))

    def _store(self, output: Output, blocks: list[Block]) -> TensorRef:
        if self._arena is None:
            if len(output.data) <= INLINE:
                return inline(*output)
            self._arena = self._open()
        return self._arena.place(*output, blocks)

    def _open(self) -> Arena:
        arena = Arena(
            ArenaSettings("cache", 16 * MEBIBYTE, 64 * MEBIBYTE, 0),
            self._names,
            lambda name: self._send(RegionOpened(name)),
            lambda name: self._send(RegionClosed(name)),
            _free_bytes,
        )
        arena.open()
        return arena


def _free_bytes() -> tuple[int, int]:
    free, total = free_bytes()
    return max(0, free - int(total * SPARED)), total
