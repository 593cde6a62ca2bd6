"""The core's side of a response cache in another server: asks the process that talks to it, and never waits. Pure.

A request that may be answered from there is in nobody's queue until the process has answered (CacheFound). The process
puts a found answer into its own shared memory, which frontends read as they read a worker's. It reads what is to be
stored where the worker has kept it, and says when it has (CacheStored): then the worker forgets it.
"""

import hashlib
from collections.abc import Collection, Iterable
from typing import Any

from broker.effects import Effect, Send
from broker.messages import CacheFound, CacheGet, CachePut, CacheStored, Forget, Keep, Kept
from broker.request import Request
from broker.response_cache import blocks_of
from shm.ref import TensorRef

LIMIT = 64 << 20
"""Bytes of the largest response that is stored."""


class RemoteCache:
    """What the process has been asked for, and what it is to store."""

    def __init__(self, out: list[Effect]) -> None:
        """`out` collects the effects. There is no process yet."""
        self._out = out
        self._peer: str | None = None
        self._numbers = 0
        self._asked: dict[int, Request] = {}
        self._stored: dict[int, tuple[str, tuple[int, ...]]] = {}  # worker, blocks

    def joined(self, peer: str) -> None:
        """The process is there."""
        self._peer = peer

    def ask(self, request: Request) -> bool:
        """Look for the answer to a request; False when there is nobody to ask."""
        if self._peer is None:
            return False
        self._numbers += 1
        self._asked[self._numbers] = request
        self._out.append(Send(self._peer, CacheGet(self._numbers, key_of(request), request.peer)))
        return True

    def found(self, message: CacheFound) -> Request | None:
        """The request that an answer is for."""
        return self._asked.pop(message.number, None)

    def keep(self, worker: str, attempt: int, batch: Iterable[Request]) -> None:
        """Have a worker keep the responses to these requests."""
        wanted = tuple([index for index, request in enumerate(batch) if request.message.digest])
        if wanted and self._peer is not None:
            self._out.append(Send(worker, Keep(attempt, wanted, LIMIT)))

    def insert(self, worker: str, request: Request, kept: Kept, outputs: tuple[TensorRef, ...]) -> None:
        """A worker has kept the response to a request; `outputs` are as its client sees them."""
        if self._peer is None:
            self.refuse(worker, kept)
            return
        self._numbers += 1
        self._stored[self._numbers] = worker, blocks_of(kept)
        self._out.append(Send(self._peer, CachePut(self._numbers, key_of(request), outputs, kept.parameters)))

    def refuse(self, worker: str, kept: Kept) -> None:
        """A worker has kept what is not wanted."""
        self._forget(worker, blocks_of(kept))

    def stored(self, message: CacheStored) -> None:
        """The process has read what it was to store."""
        if message.number in self._stored:
            self._forget(*self._stored.pop(message.number))

    def process_lost(self) -> list[Request]:
        """The process is dead: the requests that it was asked for, which have to be executed."""
        self._peer = None
        asked, self._asked = list(self._asked.values()), {}
        for number in list(self._stored):
            self._forget(*self._stored.pop(number))
        return asked

    def worker_lost(self, worker: str) -> None:
        """A worker is dead: its memory goes."""
        self._stored = {number: put for number, put in self._stored.items() if put[0] != worker}

    def frontend_lost(self, _frontend: str) -> None:
        """The process hears of it by PeerGone."""

    def read(self, _frontend: str, _number: int) -> None:
        """What frontends read is the process's, not ours."""

    def retain(self, _versions: Collection[Any]) -> None:
        """The key has the version's files and configuration in it."""

    def _forget(self, worker: str, blocks: tuple[int, ...]) -> None:
        if blocks:
            self._out.append(Send(worker, Forget(blocks)))


def key_of(request: Request) -> str:
    """The same for equal requests to versions with equal files and configurations, also of other servers."""
    version = request.version
    hashed = hashlib.sha256(request.message.digest, usedforsecurity=False)
    for fingerprint in version.fingerprint:
        hashed.update(fingerprint.encode())
    return f"tidepool:{version.model}:{version.number}:{hashed.hexdigest()}"
