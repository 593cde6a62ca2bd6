"""Where outputs go: into the message when tiny, else into this worker's arena, or to where the client wants them."""

import itertools
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np

from broker.child import Place
from broker.messages import (
    COMPLETE,
    NOBODY,
    ErrorCode,
    Item,
    Load,
    Message,
    PassOn,
    RegionClosed,
    RegionOpened,
    Result,
    Target,
)
from shm.arena import Arena, ArenaFull, ArenaSettings, Block, Buffer
from shm.ref import TensorRef
from shm.region import name_for
from workers.client_memory import ClientMemory
from workers.errors import BackendError, MalformedInput
from workers.outcome import Outcome, Output, Response


class Outputs:
    """The one owner of the worker's arena; any thread may use it."""

    def __init__(self, place: Place, client_memory: ClientMemory, send: Callable[[Message], None]) -> None:
        """There is no memory before `open`."""
        self._client_memory = client_memory
        self._send = send
        self._arena: Arena | None = None
        self._model = ""
        self.names = map(partial(name_for, place.server, place.token), itertools.count())
        self._declared: frozenset[str] = frozenset()
        self._gone = {NOBODY}  # readers that are dead, and those that never were
        self._rooms: dict[int, Block] = {}  # lent by `room`, by address
        self._lock = threading.Lock()

    def open(self, load: Load) -> None:
        """Make the arena. Raises BackendError."""
        self._model = load.model
        arena = Arena(
            ArenaSettings(load.backend, *load.arena),
            self.names,
            lambda name: self._send(RegionOpened(name)),
            lambda name: self._send(RegionClosed(name)),
        )
        try:
            arena.open()
        except OSError as error:
            raise BackendError(
                ErrorCode.UNAVAILABLE,
                f"no shared memory of {load.arena[0]} bytes (shm-default-byte-size) for '{load.instance}': {error}",
            ) from None
        self._arena = arena

    def declare(self, names: Iterable[str]) -> None:
        """The model's outputs: what else it answers is left out. Without any name, nothing is."""
        self._declared = frozenset(names)

    def result(self, item: Item, outcome: Outcome, part: int = COMPLETE) -> Result:
        """Put a response's outputs where its client can read them. What fails becomes the request's error."""
        if self._rooms and isinstance(outcome, BackendError):
            with self._lock:
                self._vacate()
        if isinstance(outcome, MalformedInput):
            return Result(outcome.code, outcome.of(self._model, item.request_id), (), {})
        if isinstance(outcome, BackendError):
            return Result(outcome.code, str(outcome), (), {})
        outputs = self.requested(item, outcome)
        try:
            refs = self._store(outputs, item) if outputs else ()
        except ArenaFull as error:
            return Result(ErrorCode.UNAVAILABLE, str(error), (), {})
        except BackendError as error:
            return Result(error.code, str(error), (), {})
        return Result(ErrorCode.OK, "", refs, outcome.parameters, part)

    def room(self, item: Item, name: str, byte_size: int) -> memoryview | None:
        """Where an output of a request that is executed alone can be written, to be found there by `result`.

        None for what the request does not ask for, or wants elsewhere.
        """
        if name not in (item.outputs or self._declared) or any(target.output == name for target in item.targets):
            return None
        with self._lock:
            if self._arena is None or item.reader in self._gone:
                return None
            try:
                block = self._arena.allocate(byte_size)
            except ArenaFull:
                return None  # `result` says so
            view = block.view(0, byte_size)
            self._rooms[_address(view)] = block
        return view

    def requested(self, item: Item, response: Response) -> list[Output]:
        """The outputs that a request asks for, of those that the model has."""
        wanted = item.outputs or self._declared
        return [output for output in response.outputs if not wanted or output.name in wanted]

    def lend(self, tensors: Sequence[Output]) -> tuple[tuple[TensorRef, ...], list[Block]]:
        """Put the inputs of a call where other workers can read them until `give_back`. Raises ArenaFull."""
        blocks: list[Block] = []
        with self._lock:
            assert self._arena is not None
            try:
                refs = tuple([self._arena.place(*tensor, blocks) for tensor in tensors])
            except ArenaFull:
                for block in blocks:
                    block.release()
                raise
        return refs, blocks

    def give_back(self, blocks: list[Block]) -> None:
        """The call is answered: its inputs are free."""
        with self._lock:
            for block in blocks:
                block.release()

    def pass_on(self, message: PassOn) -> None:
        """A block that was kept for the broker goes to its last reader, or back."""
        region, slot, generation, reader = message
        with self._lock:
            if self._arena is not None:
                self._arena.pass_on(region, slot, generation, "" if reader in self._gone else reader)

    def reader_gone(self, peer: str) -> None:
        """The process `peer` is dead: what it was to read is free, and nothing is kept for it any more."""
        with self._lock:
            self._gone.add(peer)
            if self._arena is not None:
                self._arena.reader_gone(peer)

    def trim(self) -> tuple[int, int]:
        """Return idle memory, about once a second. Bytes in use, and bytes mapped."""
        with self._lock:
            if self._arena is None:
                return 0, 0
            self._arena.trim()
            return self._arena.used_byte_size, self._arena.byte_size

    def _store(self, outputs: list[Output], item: Item) -> tuple[TensorRef, ...]:
        """The references of stored outputs. Raises ArenaFull, BackendError, with nothing kept."""
        assert self._arena is not None
        targets = {target.output: target for target in item.targets} if item.targets else {}
        refs: list[TensorRef] = []
        blocks: list[Block] = []
        with self._lock:
            if item.reader in self._gone:
                self._vacate()
                return ()
            try:
                for output in outputs:
                    if output.name in targets:
                        refs.append(self._deliver(output, targets[output.name]))
                    elif self._rooms and _address(output.data) in self._rooms:
                        refs.append(self._taken(output, blocks, item.reader))
                    else:
                        refs.append(self._arena.place(*output, blocks, item.reader))
            except (ArenaFull, BackendError):
                for block in blocks:
                    block.release()
                raise
            finally:
                if self._rooms:
                    self._vacate()
        return tuple(refs)

    def _taken(self, output: Output, blocks: list[Block], reader: str) -> TensorRef:
        """The reference of an output that has been written where it is to be read."""
        assert self._arena is not None
        block = self._rooms.pop(_address(output.data))
        blocks.append(block)
        if reader:
            self._arena.pass_on(block.region.name, block.slot, block.generation, reader)
        return block.ref(output.name, output.datatype, output.shape, 0, len(output.data))

    def _vacate(self) -> None:
        """What was lent and not used is free again."""
        for block in self._rooms.values():
            block.release()
        self._rooms.clear()

    def _deliver(self, output: Output, target: Target) -> TensorRef:
        """Write an output into memory that its client has registered. Raises BackendError."""
        name, datatype, shape, data = output
        size = len(data)
        if size > target.byte_size:
            raise BackendError(
                ErrorCode.INTERNAL,
                f"shared memory size specified with the request for output '{name}' ({target.byte_size} bytes) should "
                f"be at least {size} bytes to hold the results",
            )
        self._client_memory.write(target.region, target.offset, data)
        return TensorRef(name, datatype, shape, size, None, target.region, target.offset)


def _address(data: Buffer) -> int:
    """Where bytes lie in this process; 0 for none."""
    if not len(data):
        return 0
    address: int = np.frombuffer(data, np.uint8).__array_interface__["data"][0]
    return address
