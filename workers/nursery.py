"""A process that has imported a backend with its framework and forks workers: all of them share what is imported.

The broker starts it as `python -P -m workers.nursery SOCKET TOKEN SERVER BROKER_PID DESCRIPTOR BACKEND ROOM`; the
descriptor is a socket, from which it reads orders: JSON, with the descriptors of the worker's output, its status page
and its gate. The worker that it forks has the broker for a parent, which adopts it: it says its process id at the gate,
and begins when the broker has answered. Where the gate closes the broker has done without it. The socket gets a byte
when all is imported.

It forks with one thread only, and without a GPU: what else a framework has begun would be missing in the worker. Before
it does, it sees to it that a worker writes to few of the pages that it shares.
"""

import contextlib
import ctypes
import gc
import json
import os
import socket
import sys
import time
from typing import NamedTuple

import workers.__main__ as worker
from broker.child import Place, die_with, take_place
from workers.backend import prepare

_SETTLE_SECONDS = 1.0
"""For threads that a fork has ended to be gone."""
_PR_SET_NAME = 15
_MAX_ORDER = 1 << 16
_NOT_SUITED = 3
"""The exit status of a nursery that cannot be one."""
_DEVICES = "CUDA_VISIBLE_DEVICES"
_SMALL = range(48, 513, 16)
"""Sizes of Python's small objects, whose blocks it keeps apart by size; the smaller ones need other objects."""
_BYTES_OVERHEAD = sys.getsizeof(b"")
_HOLES = 80_000
"""Bytes of each size that fill what holes there may be."""

_libc = ctypes.CDLL(None)


class Order(NamedTuple):
    """A worker to be forked: its token, its name for people, its CUDA_VISIBLE_DEVICES (None: unset), descriptors."""

    token: str
    name: str
    devices: str | None
    output: int
    status: int
    gate: socket.socket

    def close(self) -> None:
        """It is the worker's from now on."""
        os.close(self.output)
        os.close(self.status)
        self.gate.close()


class Title(NamedTuple):
    """Where this process's command line lies, as `ps` shows it."""

    start: int
    size: int

    @staticmethod
    def find() -> "Title":
        """The place is the same in what is forked."""
        with open("/proc/self/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        start, end = int(fields[45]), int(fields[46])  # arg_start and arg_end, see proc(5)
        return Title(start, end - start)

    def write(self, command: list[str]) -> None:
        """Have `ps` show another one, cut to the length of the first."""
        text = "\0".join(command).encode("utf-8", "surrogateescape")
        if self.start:
            ctypes.memmove(self.start, text[: self.size - 1].ljust(self.size, b"\0"), self.size)


def main() -> None:
    """Fork workers until the broker closes the socket; in a worker, be one."""
    place, backend = take_place(sys.argv[1:]), sys.argv[6]
    try:
        prepare(backend)
    except ImportError:
        sys.exit(_NOT_SUITED)  # the worker that does without us will say why
    reason = unfit()
    if reason:
        sys.stdout.write(f"workers of backend '{backend}' are not forked: {reason}\n")
        sys.exit(_NOT_SUITED)
    title, broker = Title.find(), int(sys.argv[4])
    orders = socket.socket(fileno=place.descriptor)
    gc.collect()
    gc.freeze()
    holes = fill_holes()
    with contextlib.suppress(ConnectionError):
        orders.send(b"!")
    while (order := receive(orders)) is not None:
        middle = os.fork()
        if middle:
            os.waitpid(middle, 0)
            order.close()
        elif fork_adopted():
            orders.close()
            begin(order, place, broker, title)
            return
    del holes  # which were to stay filled


def receive(orders: socket.socket) -> Order | None:
    """The next order; None when there will be none."""
    try:
        data, descriptors, _, _ = socket.recv_fds(orders, _MAX_ORDER, 3, socket.MSG_CMSG_CLOEXEC)
    except ConnectionError:  # the broker has closed it before it has read all
        return None
    if not data:
        return None
    token, name, devices = json.loads(data)
    output, status, gate = descriptors
    return Order(token, name, devices, output, status, socket.socket(fileno=gate))


def unfit() -> str:
    """Why this process must not fork workers; `""`: it may. OpenBLAS ends its threads before a fork, and only then."""
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    end = time.monotonic() + _SETTLE_SECONDS
    while len(os.listdir("/proc/self/task")) > 1:
        if time.monotonic() > end:
            return "it starts threads when it is imported"
        time.sleep(0.01)
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{name}").startswith("/dev/nvidia"):
                return "it uses a GPU when it is imported"
        except FileNotFoundError:  # what listed the directory
            continue
    return ""


def fill_holes() -> list[object]:
    """Take the free blocks between the objects that there are: a worker's objects then lie together, on few pages."""
    smallest = [object() for _ in range(1200)]
    return [smallest, *[float(i) for i in range(300)]] + [
        bytes(size - _BYTES_OVERHEAD) for size in _SMALL for _ in range(_HOLES // size)
    ]


def fork_adopted() -> bool:
    """Fork once more and end: whoever forked us is rid of the child, which returns True once it has been adopted."""
    middle = os.getpid()
    try:
        is_worker = not os.fork()
    except OSError:
        is_worker = False
    if not is_worker:
        os._exit(0)
    while os.getppid() == middle:
        time.sleep(0.0001)
    return True


def is_let_in(gate: socket.socket) -> bool:
    """Say who we are; whether we are still wanted."""
    try:
        gate.send(str(os.getpid()).encode())
        return bool(gate.recv(1))
    except ConnectionError:
        return False


def begin(order: Order, nursery: Place, broker: int, title: Title) -> None:
    """Be the worker that is wanted, as if it had been started by its command line; ends where the broker does not."""
    if not is_let_in(order.gate):
        os._exit(0)
    die_with(broker)
    order.gate.close()
    os.dup2(order.output, 1)
    os.dup2(order.output, 2)
    os.close(order.output)
    if os.environ.get(_DEVICES) != order.devices:
        os.environ.pop(_DEVICES, None)
        if order.devices is not None:
            os.environ[_DEVICES] = order.devices
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()  # Python's own generator does it by itself
    place = Place(nursery.socket, order.token, nursery.server, order.status)
    sys.argv = [str(worker.__file__), place.socket, place.token, place.server, str(broker), str(place.descriptor)]
    sys.modules["__main__"] = worker
    _libc.prctl(_PR_SET_NAME, order.name.encode(), 0, 0, 0)
    title.write([*sys.orig_argv[:3], "workers", *sys.argv[1:], order.name])
    worker.serve(place)


if __name__ == "__main__":
    main()
