"""The loop of a worker: receive, load or execute, answer. One thread, and everything in the order it was sent."""

import gc
import itertools
import mmap
import os
import threading
import time
import traceback
from collections import deque
from collections.abc import Sequence

from broker.child import Place
from broker.messages import (
    PROTOCOL,
    Beat,
    ErrorCode,
    Execute,
    Executed,
    Hello,
    Item,
    Load,
    Loaded,
    LoadFailed,
    Log,
    Message,
    PeerGone,
    RegionClosed,
    RegionDropped,
    RegionOpened,
    Result,
    Stop,
)
from broker.transport import Dealer
from shm.arena import INLINE, Arena, ArenaFull, ArenaSettings, inline
from shm.ref import TensorRef
from shm.region import name_for
from shm.tensor import Regions
from workers.backend import Backend, Outcome, Output, Times, create
from workers.errors import BackendError, printable
from workers.inputs import Inputs
from workers.model import ModelSpec

BEAT_SECONDS = 1.0
PROMPT_NS = 200_000
"""An answer that took longer than this leaves before the next batch begins; shorter ones leave together."""


class Worker:
    """One per process; `run` is its life."""

    def __init__(self, place: Place) -> None:
        """Nothing happens before `run`."""
        self._place = place
        self._outgoing: deque[Message] = deque()
        self._regions = Regions()
        self._inputs = Inputs(self._regions)
        self._backend: Backend | None = None
        self._arena: Arena | None = None
        self._is_running = False

    def run(self) -> None:
        """Serve until told to stop."""
        self._dealer = Dealer(self._place.socket, self._place.token)
        self._status = memoryview(mmap.mmap(self._place.descriptor, mmap.PAGESIZE)).cast("Q")
        self._send(Hello(PROTOCOL, "worker", os.getpid()))
        self._is_running = True
        next_beat = time.monotonic()
        while self._is_running:
            now = time.monotonic()
            if now >= next_beat:
                self._beat()
                next_beat = now + BEAT_SECONDS
            self._flush()
            self._dealer.wait(next_beat - now)
            for message in self._dealer.receive():
                self._handle(message)
        self._unload()
        self._flush()
        self._dealer.close()

    # ------------------------------------------------------------------------------------------- messages

    def _handle(self, message: Message) -> None:
        match message:
            case Execute(attempt, items):
                self._execute(attempt, items)
            case RegionOpened(name):
                self._regions.open(name)
            case RegionClosed(name):
                self._regions.close(name)
                self._send(RegionDropped(name))
            case PeerGone(peer):
                if self._arena is not None:
                    self._arena.reader_gone(peer)
            case Load():
                self._load(message)
            case Stop():
                self._is_running = False
            case _:
                return

    def _send(self, message: Message) -> None:
        self._outgoing.append(message)

    def _flush(self) -> None:
        messages: list[Message] = []
        while self._outgoing:
            messages.append(self._outgoing.popleft())
        if messages:
            self._dealer.send(messages)

    def _log(self, level: str, text: str) -> None:
        """Any thread of the model may log; what the main thread says leaves at once, before a crash can take it."""
        self._send(Log(level, printable(text)))
        if threading.current_thread() is threading.main_thread():
            self._flush()

    def _beat(self) -> None:
        used = mapped = 0
        if self._arena is not None:
            self._arena.trim()
            used, mapped = self._arena.used_byte_size, self._arena.byte_size
        self._regions.retry_close()
        self._send(Beat(used, mapped))

    # ------------------------------------------------------------------------------------------- load and unload

    def _load(self, load: Load) -> None:
        try:
            self._arena = self._open_arena(load)
            self._backend = create(ModelSpec.from_load(load), self._inputs, self._log)
            interface = self._backend.load()
        except BackendError as error:
            self._send(LoadFailed(error.code, str(error)))
        except Exception as error:
            self._log("E", traceback.format_exc())
            self._send(LoadFailed(ErrorCode.INTERNAL, f"{type(error).__name__}: {error}"))
        else:
            gc.collect()
            gc.freeze()  # what the model holds for good need not be walked again
            self._send(Loaded(interface.inputs, interface.outputs))

    def _open_arena(self, load: Load) -> Arena:
        arena = Arena(
            ArenaSettings(load.backend, *load.arena),
            (name_for(self._place.server, self._place.token, number) for number in itertools.count()),
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
        return arena

    def _unload(self) -> None:
        if self._backend is None:
            return
        try:
            self._backend.unload()
        except Exception:
            self._log("E", f"error while unloading:\n{traceback.format_exc()}")

    # ------------------------------------------------------------------------------------------- execution

    def _execute(self, attempt: int, items: tuple[Item, ...]) -> None:
        times = Times()
        self._status[0] = attempt
        outcomes = self._outcomes(items, times)
        times.outputs_are_computed()
        results = tuple([self._result(*pair) for pair in zip(items, outcomes, strict=True)])
        done = time.monotonic_ns()
        self._send(Executed(attempt, results, (times.began, times.inputs_ready, times.outputs_computed, done)))
        if done - times.began > PROMPT_NS:
            self._flush()

    def _outcomes(self, items: tuple[Item, ...], times: Times) -> Sequence[Outcome]:
        """One outcome for each item, whatever the backend does."""
        try:
            if self._backend is None:
                raise BackendError(ErrorCode.UNAVAILABLE, "the model is not loaded")
            outcomes = self._backend.execute(items, times)
            if len(outcomes) != len(items):
                raise RuntimeError(f"the backend has {len(outcomes)} outcomes for {len(items)} requests")
        except BackendError as error:
            return [error] * len(items)
        except Exception as error:
            self._log("E", traceback.format_exc())
            return [BackendError(ErrorCode.INTERNAL, f"{type(error).__name__}: {error}")] * len(items)
        return outcomes

    def _result(self, item: Item, outcome: Outcome) -> Result:
        if isinstance(outcome, BackendError):
            return Result(outcome.code, str(outcome), (), {})
        wanted = item.outputs
        try:
            refs = self._store([o for o in outcome.outputs if not wanted or o.name in wanted], item.reader)
        except ArenaFull as error:
            return Result(ErrorCode.UNAVAILABLE, str(error), (), {})
        return Result(ErrorCode.OK, "", refs, outcome.parameters)

    def _store(self, outputs: list[Output], reader: str) -> tuple[TensorRef, ...]:
        """Put outputs where `reader` can read them. Raises ArenaFull, with nothing kept."""
        assert self._arena is not None
        refs: list[TensorRef] = []
        blocks = []
        try:
            for name, datatype, shape, data in outputs:
                if len(data) <= INLINE:
                    refs.append(inline(name, datatype, shape, data))
                else:
                    blocks.append(self._arena.allocate(len(data), reader))
                    refs.append(blocks[-1].store(name, datatype, shape, data))
        except ArenaFull:
            for block in blocks:
                block.release()
            raise
        return tuple(refs)
