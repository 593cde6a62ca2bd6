"""A worker's connection to the broker: served by the main thread between executions, or by a thread of its own.

Most models answer when `execute` returns. For them the main thread receives, executes and answers, which is the
cheapest way. A model that sends responses by itself, asks whether its client has gone, or calls other models needs the
connection while it executes: from the first such need on (`share`) an I/O thread has the socket, and the main thread
takes its work from a queue.
"""

import os
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import TypeAlias, cast

from broker.messages import Execute, Load, Message, Stop
from broker.transport import Dealer

BEAT_SECONDS = 1.0

Work: TypeAlias = Load | Execute | Stop
"""What the main thread does; everything else is handled by whoever receives it."""

_WORK = frozenset({Load, Execute, Stop})


class Connection:
    """`next`, `flush` and `close` are for the main thread, `send`, `post` and `share` for any."""

    def __init__(self, dealer: Dealer, handle: Callable[[Message], None], beat: Callable[[], None]) -> None:
        """`handle` gets what is no work, `beat` is called about once a second, both by whoever has the socket."""
        self._dealer = dealer
        self._handle = handle
        self._beat = beat
        self._next_beat = 0.0
        self._outgoing: deque[Message] = deque()
        self._calls: deque[Callable[[], None]] = deque()
        self._received: deque[Message] = deque()  # by the main thread
        self._work: SimpleQueue[Work] = SimpleQueue()  # from the I/O thread
        self._thread: threading.Thread | None = None
        self._turn = threading.RLock()  # whoever uses the socket has it, as long as there is no I/O thread
        self._is_shared = False
        self._is_awake = False  # the I/O thread will look for something to do before it waits
        self._is_closing = False

    def next(self) -> Work:
        """Wait for something to do."""
        with self._turn:
            while not self._is_shared:
                while self._received:
                    message = self._received.popleft()
                    if type(message) in _WORK:
                        return cast("Work", message)
                    self._handle(message)
                self._exchange(self._received.append)
            self._start()
        return self._work.get()

    def send(self, message: Message) -> None:
        """Queue a message: it leaves before the main thread waits again, or at once when there is an I/O thread."""
        self._outgoing.append(message)
        if self._thread is not None:
            self._wake()

    def wait_for(self, is_done: Callable[[], bool]) -> None:
        """Wait for something that a message brings; work that comes meanwhile waits. For any thread, see `share`."""
        if threading.current_thread() is not threading.main_thread():
            self.share()
            return
        with self._turn:
            while not self._is_shared and not is_done():
                self._exchange(self._keep)
            if self._is_shared:
                self._start()

    def flush(self) -> None:
        """Send what is queued now."""
        with self._turn:
            if self._thread is None:
                self._flush()

    def post(self, call: Callable[[], None]) -> None:
        """Have something done by whoever has the socket; for callers that may hold any lock."""
        self._calls.append(call)
        if self._thread is not None:
            self._wake()

    def share(self) -> None:
        """From now on messages come and go while the main thread executes."""
        if self._thread is None:
            self._is_shared = True
            self._dealer.wake()
            with self._turn:
                self._start()

    def close(self) -> None:
        """Send what is left and close."""
        self._is_closing = True
        if self._thread is not None:
            self._dealer.wake()
            self._thread.join()
        self._flush()
        self._dealer.close()

    # ------------------------------------------------------------------------------------------- whoever has the socket

    def _start(self) -> None:
        if self._thread is None:
            while self._received:
                self._route(self._received.popleft())
            self._thread = threading.Thread(target=self._serve, name="tidepool-io", daemon=True)
            self._thread.start()

    def _serve(self) -> None:
        try:
            while not self._is_closing:
                self._exchange(self._route)
        except BaseException:
            traceback.print_exc()
            os._exit(1)  # better dead and started again than alive and deaf

    def _keep(self, message: Message) -> None:
        if type(message) in _WORK:
            self._received.append(message)
        else:
            self._handle(message)

    def _route(self, message: Message) -> None:
        if type(message) in _WORK:
            self._work.put(cast("Work", message))
        else:
            self._handle(message)

    def _exchange(self, take: Callable[[Message], None]) -> None:
        """One turn: everything out, wait, everything in."""
        now = time.monotonic()
        if now >= self._next_beat:
            self._beat()
            self._next_beat = now + BEAT_SECONDS
        self._is_awake = False
        while self._calls:
            self._calls.popleft()()
        self._flush()
        self._dealer.wait(self._next_beat - now)
        for message in self._dealer.receive():
            take(message)

    def _flush(self) -> None:
        messages: list[Message] = []
        while self._outgoing:
            messages.append(self._outgoing.popleft())
        if messages:
            self._dealer.send(messages)

    def _wake(self) -> None:
        if not self._is_awake and not self._is_closing:
            self._is_awake = True
            self._dealer.wake()
