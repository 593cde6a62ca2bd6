"""The asyncio side of the fabric, for frontends: requests out, responses in, and whose shared memory is whose."""

import asyncio
import itertools
import os
import sys
import time
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable
from typing import Any, NamedTuple, Protocol

from broker.child import Place
from broker.digest import digest
from broker.messages import (
    PROTOCOL,
    Answer,
    Beat,
    CachedRead,
    Cancel,
    Consumed,
    Delivered,
    Directory,
    ErrorCode,
    Hello,
    Infer,
    Message,
    Part,
    ProtocolError,
    RegionClosed,
    RegionDropped,
    RegionOpened,
    Response,
    Serving,
    Stop,
    Welcome,
)
from broker.transport import Dealer
from shm.arena import INLINE, Arena, ArenaFull, ArenaSettings, Block, Buffer, inline
from shm.ref import TensorRef
from shm.region import name_for
from shm.tensor import Regions

_FINAL = Part.FINAL.value
BEAT_SECONDS = 1.0
LONG = 1 << 20
"""Bytes of input whose digest is computed in a thread."""
ADMISSION_SECONDS = 5.0
"""How long a request waits for shared memory before it is refused."""
ROOM_SECONDS = 0.25
"""How often a waiting request looks again without being told: memory may be freed by others."""


class Receiver(Protocol):
    """What a response goes to: a future, or what is like one."""

    def done(self) -> bool:
        """Nothing is wanted any more."""

    def set_result(self, result: Any, /) -> None:
        """Here it is."""

    def set_exception(self, error: Any, /) -> None:
        """There will be none."""


class _Pending(NamedTuple):
    """A request that the broker has not answered finally: where its responses go, and its input blocks."""

    future: Receiver | None
    queue: "asyncio.Queue[Response] | None"
    blocks: list[Block]


class Client:
    """One per frontend process. All methods belong to the event loop's thread.

    Use: `await connect()`, then `infer` / `ask`. Inputs are put into blocks with `place`; the blocks of a request are
    handed to `infer`, which gives them back when the broker's answer is in (also after a cancel).
    """

    def __init__(self, place: Place, role: str, on_stop: Callable[[], None]) -> None:
        """Nothing happens before `connect`; `on_stop` is called when the broker asks the process to end."""
        self._role = role
        self._on_stop = on_stop
        self._dealer = Dealer(place.socket, place.token)
        self._names = (name_for(place.server, place.token, number) for number in itertools.count())
        self._numbers = itertools.count(1)
        self._pending: dict[int, _Pending] = {}
        self._outgoing: list[Message] = []
        self._welcome: asyncio.Future[Welcome] | None = None
        self.directory = Directory({}, {})
        self._cached: frozenset[str] = frozenset()  # models whose requests carry a digest
        self._arenas: dict[str, Arena] = {}
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._unread: Counter[str] = Counter()  # tensors of responses that are still to be read, by region
        self._condemned: set[str] = set()  # regions that go when these have been read
        self.regions = Regions()

    async def connect(self) -> Welcome:
        """Say hello and wait for the broker's welcome."""
        loop = asyncio.get_running_loop()
        self._welcome = loop.create_future()
        loop.add_reader(self._dealer.fileno(), self._receive)
        self._send(Hello(PROTOCOL, self._role, os.getpid()))
        welcome = await self._welcome
        self._beat()
        return welcome

    def serving(self) -> None:
        """Tell the broker that this frontend takes requests now."""
        self._send(Serving())

    # ------------------------------------------------------------------------------------------- requests

    def number(self) -> int:
        """A fresh number for a request."""
        return next(self._numbers)

    async def infer(self, request: Infer, blocks: list[Block]) -> Response:
        """Send a request whose inputs lie in `blocks`; its response (outputs still to be read, see `done_with`).

        When the caller is cancelled the broker is told, and a response that comes later is dropped here.
        """
        if self._cached:
            request = await self._digested(request, blocks)
        future: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self._pending[request.request] = _Pending(future, None, blocks)
        self._send(request)
        try:
            return await future
        except asyncio.CancelledError:
            if request.request in self._pending:
                self._send(Cancel(request.request))
            elif not future.cancelled():
                self.done_with(future.result().outputs)
            raise

    def submit(self, request: Infer, blocks: list[Block], receiver: Receiver) -> None:
        """Send a request whose one response goes to `receiver` as soon as it is here; see `infer`, `cancel`."""
        if request.model in self._cached:
            request = request._replace(digest=self._digest(request, blocks)())
        self._pending[request.request] = _Pending(receiver, None, blocks)
        self._send(request)

    def _digest(self, request: Infer, blocks: list[Block]) -> Callable[[], bytes]:
        """Computes the digest of what decides a request's answer; empty when that lies in memory of the client's."""
        views = {block.region.name: block.region.view for block in blocks}
        if request.targets or not all(ref.data is not None or ref.region in views for ref in request.inputs):
            return bytes
        return lambda: digest(request, lambda ref: _content(ref, views))

    async def _digested(self, request: Infer, blocks: list[Block]) -> Infer:
        """The request with its digest, if its answer may be cached; long inputs are read beside the loop."""
        if request.model not in self._cached:
            return request
        compute = self._digest(request, blocks)
        if sum(ref.byte_size for ref in request.inputs) <= LONG:
            return request._replace(digest=compute())
        computing = asyncio.ensure_future(asyncio.to_thread(compute))
        try:
            return request._replace(digest=await asyncio.shield(computing))
        except asyncio.CancelledError:
            computing.add_done_callback(lambda _: self.release(blocks))  # not while they are read
            raise

    def cancel(self, number: int) -> None:
        """Nobody waits for this request any more: the broker is told, a response that comes later is dropped."""
        pending = self._pending.get(number)
        if pending is not None:
            self._pending[number] = _Pending(None, None, pending.blocks)
            self._send(Cancel(number))

    async def stream(self, request: Infer, blocks: list[Block]) -> AsyncGenerator[Response, None]:
        """Send a request that may have any number of responses; the last has Part.FINAL, and perhaps no content.

        The outputs of a response are to be read and given back (`done_with`) before the next is asked for; that lets
        the model send on. When the iteration is ended early the broker is told.
        """
        if self._cached:
            request = await self._digested(request, blocks)
        queue: asyncio.Queue[Response] = asyncio.Queue()
        self._pending[request.request] = _Pending(None, queue, blocks)
        self._send(request)
        is_final = False
        try:
            while not is_final:
                response = await queue.get()
                is_final = bool(response.part & _FINAL)
                yield response
                if not is_final:
                    self._send(Consumed(request.request, 1))
        finally:
            if not is_final:
                self._abandon(request.request, queue)

    def delivered(self, response: Response, began: int) -> None:
        """A response with Part.TRACED was sent to its client, from `began` (in nanoseconds) until now."""
        self._send(Delivered(response.request, began, time.monotonic_ns()))

    async def ask(self, question: Message, number: int) -> Answer:
        """Send one of the Get messages, whose request number is `number`, and wait for its answer."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._pending[number] = _Pending(future, None, [])
        self._send(question)
        return await future

    @property
    def in_flight(self) -> int:
        """Requests that the broker has not answered."""
        return len(self._pending)

    # ------------------------------------------------------------------------------------------- tensors

    def arena(self, model: str) -> Arena:
        """The arena for a model's inputs: one for each backend, of the size that the backend's settings ask for."""
        backend = self.directory.backends.get(model, "")
        arena = self._arenas.get(backend)
        if arena is None:
            sizes = self.directory.arenas.get(backend) or self.directory.arenas[""]
            arena = self._arenas[backend] = Arena(
                ArenaSettings(backend, *sizes),
                self._names,
                lambda name: self._send(RegionOpened(name)),
                lambda name: self._send(RegionClosed(name)),
            )
            arena.open()
        return arena

    async def allocate(self, model: str, byte_size: int) -> Block:
        """A block for input bytes; waits for room, ADMISSION_SECONDS at most. Raises ArenaFull."""
        arena = self.arena(model)
        deadline = time.monotonic() + ADMISSION_SECONDS
        while True:
            try:
                return arena.allocate(byte_size)
            except ArenaFull as error:
                remaining = deadline - time.monotonic()
                if error.is_final or remaining <= 0:
                    raise
                await self._room(min(remaining, ROOM_SECONDS))

    async def store(
        self, model: str, name: str, datatype: str, shape: tuple[int, ...], data: Buffer, blocks: list[Block]
    ) -> TensorRef:
        """Put an input's bytes where workers can read them; its block, if it needs one, is added to `blocks`.

        Raises ArenaFull.
        """
        if len(data) <= INLINE:
            return inline(name, datatype, shape, data)
        block = await self.allocate(model, len(data))
        blocks.append(block)
        return block.store(name, datatype, shape, data)

    def release(self, blocks: list[Block]) -> None:
        """Give back blocks of a request that was never sent, or whose answer has come."""
        for block in blocks:
            block.release()
        self._wake()

    def done_with(self, outputs: tuple[TensorRef, ...]) -> None:
        """The outputs of a response have been read: their blocks go back to their owner."""
        regions = _regions(outputs)
        if not regions:
            return
        for ref in outputs:
            if ref.generation < 0:
                self._send(CachedRead(-ref.generation))
            else:
                self.regions.mark_done(ref)
        self._unread.subtract(regions)
        for name in [*self._condemned]:
            self._close(name)

    async def _room(self, seconds: float) -> None:
        """Wait until some block comes back, or for `seconds` (memory may come from elsewhere)."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            await asyncio.wait_for(future, seconds)
        except TimeoutError:
            return
        finally:
            if future in self._waiting:
                self._waiting.remove(future)

    def _wake(self) -> None:
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)

    # ------------------------------------------------------------------------------------------- fabric

    def _send(self, message: Message) -> None:
        """Queue a message; everything queued in one turn of the loop leaves as one list."""
        if not self._outgoing:
            asyncio.get_running_loop().call_soon(self._flush)
        self._outgoing.append(message)

    def _flush(self) -> None:
        outgoing, self._outgoing = self._outgoing, []
        try:
            self._dealer.send(outgoing)
        except (TypeError, ValueError, OverflowError):
            self._send_one_by_one(outgoing)
        self._receive()  # a send may have swallowed the edge that announces input

    def _send_one_by_one(self, messages: list[Message]) -> None:
        """One of these cannot be packed: its request fails, the others go."""
        for message in messages:
            try:
                self._dealer.send([message])
            except (TypeError, ValueError, OverflowError) as error:
                number = getattr(message, "request", 0)
                pending = self._pending.pop(number, None)
                if pending is None:
                    raise
                self.release(pending.blocks)
                if pending.queue is not None:
                    text = f"the request cannot be passed on: {error}"
                    pending.queue.put_nowait(Response(number, ErrorCode.INTERNAL, text, "", -1, (), {}, Part.FINAL))
                elif pending.future is not None and not pending.future.done():
                    pending.future.set_exception(error)

    def _receive(self) -> None:
        try:
            messages = self._dealer.receive()
        except ProtocolError as error:
            sys.stderr.write(f"the broker speaks another protocol: {error}\n")
            os._exit(1)  # better dead and started again than alive and deaf
        for message in messages:
            self._handle(message)

    def _handle(self, message: Message) -> None:
        match message:
            case Response():
                self._respond(message)
            case Answer():
                pending = self._pending.pop(message.request, None)
                if pending is not None and pending.future is not None and not pending.future.done():
                    pending.future.set_result(message)
            case RegionOpened(name):
                self.regions.open(name)
            case RegionClosed(name):
                self._close(name)
            case Directory():
                self.directory = message
                self._cached = frozenset(message.cached)
            case Welcome():
                if self._welcome is not None and not self._welcome.done():
                    self._welcome.set_result(message)
            case Stop():
                self._on_stop()
            case _:
                return

    def _close(self, name: str) -> None:
        """Unmap a region as soon as every response that lies in it has been read."""
        if self._unread[name]:
            self._condemned.add(name)
            return
        self._condemned.discard(name)
        del self._unread[name]
        self.regions.close(name)
        self._send(RegionDropped(name))

    def _respond(self, response: Response) -> None:
        pending = self._pending.get(response.request)
        if pending is None:
            return
        regions = _regions(response.outputs)
        if regions:
            self._unread.update(regions)
        if response.part & _FINAL:
            del self._pending[response.request]
            if pending.blocks:
                self.release(pending.blocks)
        if pending.queue is not None:
            pending.queue.put_nowait(response)
        elif pending.future is None or pending.future.done():
            self.done_with(response.outputs)
        else:
            pending.future.set_result(response)

    def _abandon(self, number: int, queue: "asyncio.Queue[Response]") -> None:
        """The reader of a stream has gone: drop what it has not read and what is still to come."""
        while not queue.empty():
            self.done_with(queue.get_nowait().outputs)
        self.cancel(number)

    def _beat(self) -> None:
        for arena in self._arenas.values():
            arena.trim()
        self.regions.retry_close()
        used = sum(arena.used_byte_size for arena in self._arenas.values())
        self._send(Beat(used, sum(arena.byte_size for arena in self._arenas.values())))
        asyncio.get_running_loop().call_later(BEAT_SECONDS, self._beat)


def _content(ref: TensorRef, views: dict[str, memoryview]) -> Buffer:
    """The bytes of an input, which this process has put where they are."""
    return ref.data if ref.data is not None else views[ref.region][ref.offset : ref.offset + ref.byte_size]


def _regions(tensors: tuple[TensorRef, ...]) -> list[str]:
    """The region of each tensor that lies in one."""
    return [ref.region for ref in tensors if ref.data is None]
