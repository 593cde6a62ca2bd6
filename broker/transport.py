"""The fabric's sockets: a ROUTER in the broker, a DEALER in every peer, over `ipc://`. The only place that knows zmq.

Nothing blocks. `receive` drains the socket until it is empty, because a zmq file descriptor signals edges only:
whoever polls `fileno()` has to call it again after every send, too.
"""

import os
from collections.abc import Iterable
from pathlib import Path

import zmq

from broker.messages import Message, ProtocolError, decode, encode

MAX_PATH = 107
"""Longest path of a Unix socket in bytes."""
DRAIN_LIMIT = 1000
"""Packed lists taken in one drain, so that a flood from one peer cannot starve the rest of the loop."""


class Unreachable(Exception):
    """The peer's connection is gone."""


class Router:
    """The broker's end. Peers are told apart by their token, which is their socket identity."""

    def __init__(self, path: Path) -> None:
        """Bind at `path`, in a directory that only we can enter. Raises OSError, also when the path is too long."""
        if len(bytes(path)) > MAX_PATH:
            raise OSError(f"the socket path '{path}' is longer than {MAX_PATH} bytes: set TMPDIR to a shorter one")
        self._context = zmq.Context(io_threads=1)
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.set(zmq.ROUTER_MANDATORY, 1)
        self._socket.set(zmq.SNDHWM, 0)
        self._socket.set(zmq.RCVHWM, 0)
        self._socket.set(zmq.LINGER, 0)
        self._socket.bind(f"ipc://{path}")

    def fileno(self) -> int:
        """Readable when `receive` may have something."""
        return int(self._socket.get(zmq.FD))

    def receive(self) -> list[tuple[str, list[Message] | ProtocolError]]:
        """All that has arrived, per packed list: the peer's token and its messages or what was wrong with them."""
        arrived: list[tuple[str, list[Message] | ProtocolError]] = []
        while len(arrived) < DRAIN_LIMIT and self.has_more():
            identity, *frames = self._socket.recv_multipart(zmq.NOBLOCK)
            peer = identity.decode("ascii", "replace")
            try:
                if len(frames) != 1:
                    raise ProtocolError("one frame belongs in a message")
                arrived.append((peer, decode(frames[0])))
            except ProtocolError as error:
                arrived.append((peer, error))
        return arrived

    def has_more(self) -> bool:
        """True when `receive` would find something at once."""
        return bool(int(self._socket.get(zmq.EVENTS)) & zmq.POLLIN)

    def send(self, peer: str, messages: Iterable[Message]) -> None:
        """Send one packed list. Raises Unreachable."""
        try:
            self._socket.send_multipart((peer.encode(), encode(messages)), zmq.NOBLOCK)
        except (zmq.Again, zmq.ZMQError) as error:
            raise Unreachable(f"{peer}: {error}") from None

    def close(self) -> None:
        """Close without waiting for anybody."""
        self._context.destroy(linger=0)


class Dealer:
    """A peer's end."""

    def __init__(self, path: str, token: str) -> None:
        """Connect to the broker's socket under the token that it gave us."""
        self._context = zmq.Context(io_threads=1)
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.set(zmq.IDENTITY, token.encode())
        self._socket.set(zmq.SNDHWM, 0)
        self._socket.set(zmq.RCVHWM, 0)
        self._socket.set(zmq.LINGER, 1000)
        self._socket.connect(f"ipc://{path}")
        self._wakeup = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._wakeup, zmq.POLLIN)

    def fileno(self) -> int:
        """Readable when `receive` may have something."""
        return int(self._socket.get(zmq.FD))

    def receive(self) -> list[Message]:
        """All messages that have arrived, in order. Raises ProtocolError."""
        messages: list[Message] = []
        while int(self._socket.get(zmq.EVENTS)) & zmq.POLLIN:
            messages += decode(self._socket.recv(zmq.NOBLOCK))
        return messages

    def wait(self, timeout: float) -> None:
        """Block until something can be received or another thread calls `wake`, `timeout` seconds at most."""
        for ready, _ in self._poller.poll(int(timeout * 1000)):
            if ready == self._wakeup:
                os.eventfd_read(self._wakeup)

    def wake(self) -> None:
        """End a `wait`, or the next one; the only method for other threads than the owner's."""
        os.eventfd_write(self._wakeup, 1)

    def send(self, messages: Iterable[Message]) -> None:
        """Send one packed list."""
        self._socket.send(encode(messages), zmq.NOBLOCK)

    def close(self) -> None:
        """Close; what was sent still leaves within a second."""
        self._context.destroy(linger=1000)
        os.close(self._wakeup)
