"""A process that has imported a backend with its framework and forks workers: what is imported is shared by all of them.

The broker starts it as `python -P -m workers.nursery SOCKET TOKEN SERVER BROKER_PID DESCRIPTOR BACKEND ...`; the
descriptor is a socket, from which it reads orders: JSON, with the descriptors of the worker's output, its status page and
its gate. The worker that it forks has the broker for a parent, which adopts it: it says its process id at the gate, and
begins when the broker has answered. Where the gate closes the broker has done without it.

It forks with one thread only, and without a GPU: what else a framework has begun would be missing in the worker.
"""

import ctypes
import gc
import json
import os
import socket
import sys
import time
from typing import Any

import workers.__main__ as worker
from broker.child import take_place
from workers.backend import prepare

_SETTLE_SECONDS = 1.0
"""For threads that a fork has ended to be gone."""
_PR_SET_NAME = 15
_MAX_ORDER = 1 << 16
_STATUS_NOT_SUITED = 3
_libc = ctypes.CDLL(None)


def main() -> None:
    """Fork workers until the broker closes the socket; in a worker, be one."""
    place = take_place(sys.argv[1:])
    orders = socket.socket(fileno=place.descriptor)
    try:
        prepare(sys.argv[6])
    except ImportError:
        sys.exit(_STATUS_NOT_SUITED)  # the worker that does without us will say why
    reason = unfit()
    if reason:
        sys.stdout.write(f"workers of backend '{sys.argv[6]}' are not forked: {reason}\n")
        sys.exit(_STATUS_NOT_SUITED)
    gc.collect()
    gc.freeze()
    while (order := receive(orders)) is not None:
        middle = os.fork()
        if middle:
            os.waitpid(middle, 0)
            order.close()
        elif fork_adopted():
            orders.close()
            begin(order)
            return


class Order:
    """One worker to be forked."""

    def __init__(self, data: bytes, descriptors: list[int]) -> None:
        """`arguments` are a worker's command line, `name` is for people, `devices` its CUDA_VISIBLE_DEVICES if set."""
        fields: dict[str, Any] = json.loads(data)
        self.arguments: list[str] = fields["arguments"]
        self.name: str = fields["name"]
        self.devices: str | None = fields["devices"]
        self.output, self.status, gate = descriptors
        self.gate = socket.socket(fileno=gate)

    def close(self) -> None:
        """It is the worker's from now on."""
        os.close(self.output)
        os.close(self.status)
        self.gate.close()


def receive(orders: socket.socket) -> Order | None:
    """The next order; None when there will be none."""
    data, descriptors, _, _ = socket.recv_fds(orders, _MAX_ORDER, 3, socket.MSG_CMSG_CLOEXEC)
    return Order(data, descriptors) if data else None


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


def begin(order: Order) -> None:
    """Be the worker that is wanted, as if it had been started by its command line; ends where the broker does not."""
    order.gate.sendall(str(os.getpid()).encode())
    if not order.gate.recv(1):
        os._exit(0)
    order.gate.close()
    os.dup2(order.output, 1)
    os.dup2(order.output, 2)
    os.close(order.output)
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    if order.devices is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = order.devices
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()  # Python's own generator does it by itself
    sys.argv = [worker.__file__, *order.arguments, str(order.status)]
    sys.modules["__main__"] = worker
    show([*sys.orig_argv[:3], "workers", *sys.argv[1:], order.name], order.name)
    worker.main()


def show(command: list[str], name: str) -> None:
    """What `ps` and `top` say of this process: in place of the nursery's command line, cut to its length."""
    _libc.prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    start, end = int(fields[45]), int(fields[46])
    if 0 < start < end:
        text = b"\0".join(part.encode("utf-8", "surrogateescape") for part in command)
        ctypes.memmove(start, text[: end - start - 1].ljust(end - start, b"\0"), end - start)


if __name__ == "__main__":
    main()
