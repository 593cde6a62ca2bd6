"""The process that talks to Redis for the response cache `redis`: no other part of the server waits for it.

Whatever is wrong with Redis is a miss. It is logged once, and Redis is left alone for a moment.
"""

import itertools
import os
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import msgspec
import redis

from broker.child import Place, take_place
from broker.messages import (
    PROTOCOL,
    Beat,
    CacheFound,
    CacheGet,
    CachePut,
    CacheStored,
    Hello,
    Log,
    Message,
    PeerGone,
    RegionClosed,
    RegionDropped,
    RegionOpened,
    Stop,
    Welcome,
)
from broker.transport import Dealer
from shm.arena import Arena, ArenaFull, ArenaSettings, Block
from shm.datatypes import DATATYPES, expected_byte_size
from shm.ref import Size
from shm.region import name_for
from shm.tensor import Regions

BEAT_SECONDS = 1.0
PAUSE_SECONDS = 1.0
"""How long Redis is left alone after it has failed."""
MEBIBYTE = 1 << 20
Value: TypeAlias = tuple[list[tuple[str, str, tuple[Size, ...], bytes]], dict[str, int | float | bool | str]]
"""What is stored: name, datatype, shape and bytes of each output, and the response's parameters."""
_VALUES = msgspec.msgpack.Encoder()
_VALUE = msgspec.msgpack.Decoder(Value)


class Store:
    """Redis, or nothing while it is out of order."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        """`options` as in `configs.cache`. Nothing is connected yet."""
        self.name = f"{options['host']}:{options['port']}"
        self.problem = ""
        self._again = 0.0
        self._client = redis.Redis(
            host=options["host"],
            port=options["port"],
            db=options["db"],
            username=options["user"] or os.environ.get("TRITONCACHE_REDIS_USERNAME"),
            password=options["password"] or os.environ.get("TRITONCACHE_REDIS_PASSWORD"),
            socket_connect_timeout=options["connect_timeout"] / 1000,
            socket_timeout=options["socket_timeout"] / 1000,
            retry=None,
        )

    def get(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values, None for each that there is not."""
        if time.monotonic() >= self._again:
            try:
                values: list[bytes | None] = self._client.mget(keys)
                self.problem = ""
                return values
            except (redis.RedisError, OSError) as error:
                self._fail(error)
        return [None] * len(keys)

    def put(self, values: Mapping[str, bytes]) -> None:
        """Store values, if that can be done."""
        if time.monotonic() >= self._again:
            try:
                self._client.mset(dict(values))
                self.problem = ""
            except (redis.RedisError, OSError) as error:
                self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._again = time.monotonic() + PAUSE_SECONDS
        self.problem = f"{type(error).__name__}: {error}"


class Process:
    """Answers the broker; one list of messages at a time, with one question to Redis for all that it asks."""

    def __init__(self, place: Place) -> None:
        """Connect to the broker."""
        self._dealer = Dealer(place.socket, place.token)
        self._regions = Regions()
        self._outgoing: list[Message] = []
        self._store: Store | None = None
        self._logged = ""
        self._is_told_to_stop = False
        self._gone: set[str] = set()  # readers that are dead
        self._arena = Arena(
            ArenaSettings("cache", 16 * MEBIBYTE, 64 * MEBIBYTE, 0),
            map(partial(name_for, place.server, place.token), itertools.count()),
            lambda name: self._outgoing.append(RegionOpened(name)),
            lambda name: self._outgoing.append(RegionClosed(name)),
        )

    def run(self) -> None:
        """Serve until told to stop."""
        self._outgoing.append(Hello(PROTOCOL, "cache", os.getpid()))
        self._arena.open()
        next_beat = 0.0
        while not self._is_told_to_stop:
            if time.monotonic() >= next_beat:
                next_beat = time.monotonic() + BEAT_SECONDS
                self._beat()
            if self._outgoing:
                outgoing, self._outgoing = self._outgoing, []
                self._dealer.send(outgoing)
            self._dealer.wait(BEAT_SECONDS)
            self._answer(self._dealer.receive())
        self._dealer.close()

    def _beat(self) -> None:
        self._arena.trim()
        self._regions.retry_close()
        self._outgoing.append(Beat(self._arena.used_byte_size, self._arena.byte_size))

    def _answer(self, messages: Sequence[Message]) -> None:
        for message in messages:
            match message:
                case RegionOpened(name):
                    self._regions.open(name)
                case RegionClosed(name):
                    self._regions.close(name)
                    self._outgoing.append(RegionDropped(name))
                case PeerGone(peer):
                    self._gone.add(peer)
                    self._arena.reader_gone(peer)
                case Welcome(options):
                    self._store = Store(options["cache"])
                case Stop():
                    self._is_told_to_stop = True
                case _:
                    continue
        if self._store is not None:
            self._put([message for message in messages if isinstance(message, CachePut)], self._store)
            self._get([message for message in messages if isinstance(message, CacheGet)], self._store)
            self._tell(self._store)

    def _tell(self, store: Store) -> None:
        """Say what is wrong with Redis, once, and that it is well again."""
        if bool(store.problem) != bool(self._logged):
            self._logged = store.problem
            text = f"no responses from the cache: {store.problem}" if store.problem else "the cache answers again"
            self._outgoing.append(Log("W" if store.problem else "I", f"redis at {store.name}: {text}"))

    def _put(self, puts: Sequence[CachePut], store: Store) -> None:
        values = {}
        for put in puts:
            try:
                values[put.key] = pack(put, self._regions)
            except (KeyError, ValueError):
                continue  # its worker is dead
        if values:
            store.put(values)
        self._outgoing += [CacheStored(put.number) for put in puts]

    def _get(self, gets: Sequence[CacheGet], store: Store) -> None:
        values = store.get([get.key for get in gets]) if gets else []
        for get, value in zip(gets, values, strict=True):
            if value is None or get.reader in self._gone:
                self._outgoing.append(CacheFound(get.number, False, (), {}))
            else:
                self._outgoing.append(self._found(get, value))

    def _found(self, get: CacheGet, value: bytes) -> CacheFound:
        """A value from Redis is as little trusted as a client: what is no response of ours is a miss."""
        blocks: list[Block] = []
        try:
            tensors, parameters = unpack(value)
            outputs = tuple([self._arena.place(*tensor, blocks, get.reader) for tensor in tensors])
        except (ValueError, ArenaFull):
            for block in blocks:
                block.release()
            return CacheFound(get.number, False, (), {})
        return CacheFound(get.number, True, outputs, parameters)


def pack(put: CachePut, regions: Regions) -> bytes:
    """The value of a response. Raises KeyError, ValueError when its bytes are gone."""
    tensors = [(ref.name, ref.datatype, ref.shape, bytes(regions.view(ref))) for ref in put.outputs]
    return _VALUES.encode((tensors, put.parameters))


def unpack(value: bytes) -> Value:
    """The tensors and parameters of a value. Raises ValueError."""
    try:
        found: Value = _VALUE.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"no response: {error}") from None
    for name, datatype, shape, data in found[0]:
        if datatype not in DATATYPES or expected_byte_size(datatype, shape) not in (None, len(data)):
            raise ValueError(f"no response: tensor '{name}' is no {datatype} of shape {list(shape)}")
    return found


if __name__ == "__main__":
    Process(take_place(sys.argv[1:])).run()
