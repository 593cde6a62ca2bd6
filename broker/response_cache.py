"""The response cache `local`: answers by what has decided them; the least recently used go first. Pure.

The bytes of small outputs are in the entry. Larger outputs lie in blocks of the worker that has computed them, in an
arena that it has for the cache alone; frontends read them there, as they read any output, and say when they have
(CachedRead). When an entry goes, its worker hears of it (Forget) as soon as nobody reads the entry any more. When the
worker goes, so do its entries: responses that are under way are safe by what holds for any region of a dead worker.
"""

from collections import Counter
from collections.abc import Collection, Iterable
from typing import Any, TypeAlias

from broker.effects import Effect, Send
from broker.messages import Forget, Keep, Kept, Parameters
from broker.request import Request
from shm.ref import TensorRef

ENTRY = 1024
"""Bytes that an entry counts for besides its outputs."""
PAGE = 4096

Key: TypeAlias = tuple[Any, bytes]
"""The models.Version that answers, and the digest of the request."""


class Entry:
    """One cached response. `readers` are the frontends that read its blocks now, with the number of references."""

    __slots__ = ("blocks", "byte_size", "key", "number", "outputs", "parameters", "readers", "worker")

    def __init__(self, number: int, key: Key, worker: str, kept: Kept, outputs: tuple[TensorRef, ...]) -> None:
        """`outputs` are those of `kept` as clients see them."""
        self.number = number
        self.key = key
        self.worker = worker
        self.blocks = blocks_of(kept)
        self.outputs = tuple([ref if ref.data is not None else _shared(ref, number) for ref in outputs])
        self.parameters: Parameters = kept.parameters
        self.byte_size = ENTRY + sum(map(_byte_size, kept.outputs))
        self.readers: Counter[str] = Counter()


class ResponseCache:
    """The entries, within a number of bytes."""

    def __init__(self, byte_size: int, out: list[Effect]) -> None:
        """`out` collects the effects."""
        self.byte_size = byte_size
        self._out = out
        self._entries: dict[Key, Entry] = {}  # the least recently used first
        self._by_number: dict[int, Entry] = {}  # with blocks: the same, and those that are gone but still read
        self._numbers = 0
        self.used = 0
        self.hits = 0
        self.misses = 0
        self.evictions = 0
        self.lookup_ns = 0
        self.insertion_ns = 0

    def __len__(self) -> int:
        """How many responses can be found."""
        return len(self._entries)

    def look_up(self, request: Request, ns: int) -> Entry | None:
        """The answer to a request that came `ns` nanoseconds ago; its blocks stay until the frontend has read them."""
        self.lookup_ns += ns
        key = request.version, request.message.digest
        entry = self._entries.pop(key, None)
        if entry is None:
            self.misses += 1
            return None
        self._entries[key] = entry
        self.hits += 1
        if entry.blocks:
            entry.readers[request.peer] += len(entry.blocks)
        return entry

    def keep(self, worker: str, attempt: int, batch: Iterable[Request]) -> None:
        """Have a worker keep the responses to these requests, as far as they are not known."""
        wanted = [
            index
            for index, request in enumerate(batch)
            if request.message.digest and (request.version, request.message.digest) not in self._entries
        ]
        if wanted:
            self._out.append(Send(worker, Keep(attempt, tuple(wanted), max(0, self.byte_size - ENTRY))))

    def insert(self, worker: str, request: Request, kept: Kept, outputs: tuple[TensorRef, ...]) -> None:
        """A worker has kept the response to a request; `outputs` are as its client sees them."""
        self._numbers += 1
        entry = Entry(self._numbers, (request.version, request.message.digest), worker, kept, outputs)
        if entry.key in self._entries or entry.byte_size > self.byte_size:
            self.refuse(worker, kept)
            return
        while self.used + entry.byte_size > self.byte_size:
            self._drop(next(iter(self._entries.values())))
            self.evictions += 1
        self.insertion_ns += kept.ns
        self._entries[entry.key] = entry
        self.used += entry.byte_size
        if entry.blocks:
            self._by_number[entry.number] = entry

    def refuse(self, worker: str, kept: Kept) -> None:
        """A worker has kept what is not wanted."""
        blocks = blocks_of(kept)
        if blocks:
            self._out.append(Send(worker, Forget(blocks)))

    def read(self, frontend: str, number: int) -> None:
        """A frontend has read a tensor of an entry."""
        entry = self._by_number.get(number)
        if entry is not None and frontend in entry.readers:
            entry.readers[frontend] -= 1
            if not entry.readers[frontend]:
                del entry.readers[frontend]
            self._free(entry)

    def frontend_lost(self, frontend: str) -> None:
        """A frontend is dead: it reads nothing any more."""
        for entry in [entry for entry in self._by_number.values() if frontend in entry.readers]:
            del entry.readers[frontend]
            self._free(entry)

    def worker_lost(self, worker: str) -> None:
        """A worker is dead: its memory goes."""
        for entry in [entry for entry in self._by_number.values() if entry.worker == worker]:
            del self._by_number[entry.number]
            self._remove(entry)

    def retain(self, versions: Collection[Any]) -> None:
        """Forget what other versions have answered."""
        for entry in [entry for entry in self._entries.values() if entry.key[0] not in versions]:
            self._drop(entry)

    def _drop(self, entry: Entry) -> None:
        """It cannot be found any more; its blocks go when they have been read."""
        self._remove(entry)
        self._free(entry)

    def _remove(self, entry: Entry) -> None:
        if self._entries.get(entry.key) is entry:
            del self._entries[entry.key]
            self.used -= entry.byte_size

    def _free(self, entry: Entry) -> None:
        is_found = self._entries.get(entry.key) is entry
        if not is_found and not entry.readers and self._by_number.pop(entry.number, None) is not None:
            self._out.append(Send(entry.worker, Forget(entry.blocks)))


def blocks_of(kept: Kept) -> tuple[int, ...]:
    """The blocks that hold a kept response, by generation."""
    return tuple([ref.generation for ref in kept.outputs if ref.data is None])


def _shared(ref: TensorRef, number: int) -> TensorRef:
    """A reference that its reader does not give back to the block's owner, but to the cache."""
    return ref._replace(slot=0, generation=-number)


def _byte_size(ref: TensorRef) -> int:
    return ref.byte_size if ref.data is not None else -(-ref.byte_size // PAGE) * PAGE
