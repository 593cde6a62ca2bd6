"""Workers out of nurseries: processes that have imported a backend's framework and fork (`workers.nursery`).

A worker is ordered, says its process id at the gate, a socket of its own, and is let in: it is our child then (we are
the subreaper of whoever loses its parent) and lives and dies as one that we have started. Until it is let in it can be
given up: what comes too late finds the gate closed. Whatever goes wrong here, the worker can be started without.
"""

import contextlib
import ctypes
import json
import os
import socket
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

from broker.effects import Start
from broker.supervisor import Adopted, Channels, Child, Supervisor, bind, environment_of

ROLE = "nursery"
PATIENCE_SECONDS = 40.0
"""How long a worker is waited for; the nursery may have a framework to import first."""
MOST_DEATHS = 3
"""A backend whose nurseries have died so often has none any more."""
_DEVICES = "CUDA_VISIBLE_DEVICES"
_PR_SET_CHILD_SUBREAPER = 36
_TOKEN = "nursery"
_ROOM = " " * 100
"""At the end of a nursery's command line, for the workers', which are written in its place."""


@dataclass(slots=True)
class Nursery:
    """One that runs, and what every worker out of it has in common."""

    token: str
    environment: dict[str, str]
    orders: socket.socket
    is_ready: bool = False  # it has imported what it is to import
    is_slow: bool = False  # that has taken longer than a worker can wait
    has_borne: bool = False

    def has_imported(self) -> bool:
        """It has said so, perhaps just now."""
        with contextlib.suppress(BlockingIOError, ConnectionError):
            self.is_ready = self.is_ready or bool(self.orders.recv(1))
        return self.is_ready


@dataclass(slots=True)
class Expected:
    """A worker that was ordered."""

    start: Start
    nursery: Nursery
    channels: Channels
    gate: socket.socket
    deadline: float
    resources: ExitStack = field(default_factory=ExitStack)


class Nurseries:
    """At most one for each backend; it is there from the backend's first worker on."""

    def __init__(self, supervisor: Supervisor, attend: Callable[[Child], None]) -> None:
        """`attend` is told of each nursery that was started, to watch it as any child."""
        self._supervisor = supervisor
        self._attend = attend
        self._count = 0
        self._by_backend: dict[str, Nursery] = {}
        self._deaths: dict[str, int] = {}
        self._expected: dict[str, Expected] = {}
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def order(self, start: Start, now: float) -> int | None:
        """Order a worker. The descriptor of its gate, readable when `arrived` knows; None: start it without."""
        if not start.backend or start.environment is not None:
            return None
        environment = environment_of(start)
        devices = environment.pop(_DEVICES, None)
        try:
            nursery = self._nursery(start, environment)
            if nursery is None or (nursery.is_slow and not nursery.has_imported()):
                return None
            return self._order(nursery, start, devices, now)
        except OSError:
            return None

    def _order(self, nursery: Nursery, start: Start, devices: str | None, now: float) -> int:
        with ExitStack() as ours, ExitStack() as its:
            channels = self._supervisor.open_channels(start, ours, its)
            gate, its_gate = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            ours.callback(gate.close)
            its.callback(its_gate.close)
            gate.setblocking(False)
            order = json.dumps([start.peer, start.name, devices]).encode()
            socket.send_fds(nursery.orders, [order], [channels.write, channels.inherited, its_gate.fileno()])
            expected = Expected(start, nursery, channels, gate, now + PATIENCE_SECONDS, ours.pop_all())
        self._expected[start.peer] = expected
        return gate.fileno()

    def arrived(self, token: str) -> Child | None:
        """Let the worker in whose gate is readable; None: it will not come."""
        expected = self._expected[token]
        with contextlib.suppress(OSError, ValueError), ExitStack() as undo:
            pid = int(expected.gate.recv(32))  # nothing at the end: ValueError
            process = Adopted.of(pid)
            undo.callback(os.close, process.pidfd)
            bind(pid, expected.start.share)  # it has one thread yet: others will inherit it
            expected.gate.send(b"!")
            undo.pop_all()
            del self._expected[token]
            expected.resources.pop_all()
            expected.gate.close()
            expected.nursery.has_borne = True
            return self._supervisor.adopt(expected.start, process, expected.channels)
        return None

    def is_expected(self, token: str) -> bool:
        """Whether this worker was ordered and has not arrived."""
        return token in self._expected

    def gate(self, token: str) -> int:
        """The descriptor to watch while a worker is expected."""
        return self._expected[token].gate.fileno()

    def give_up(self, token: str) -> Start:
        """Do without a worker that was ordered: what was to be started."""
        expected = self._expected.pop(token)
        expected.resources.close()
        return expected.start

    def overdue(self, now: float) -> list[str]:
        """Workers that were waited for too long; nurseries that could have forked them hang, and are killed."""
        late = [expected for expected in self._expected.values() if expected.deadline <= now]
        for expected in late:
            if expected.nursery.has_imported():
                self._supervisor.kill(expected.nursery.token)
            else:
                expected.nursery.is_slow = True
        return [expected.start.peer for expected in late]

    def lost(self, token: str, is_outside: bool) -> bool:
        """A process is dead. Whether it was a nursery; the next worker of the backend gets a new one, if that helps."""
        for backend, nursery in list(self._by_backend.items()):
            if nursery.token == token:
                is_hopeless = not nursery.has_borne and not is_outside
                self._deaths[backend] = MOST_DEATHS if is_hopeless else self._deaths.get(backend, 0) + 1
                self._by_backend.pop(backend).orders.close()
        return token.startswith(_TOKEN)

    def reap_strangers(self) -> None:
        """Bury dead children that nobody knows: what workers had started and have left behind."""
        if self._expected:
            return  # one of them may be who was ordered
        known = {child.process.pid for child in self._supervisor.children.values()}
        with contextlib.suppress(OSError):
            with open(f"/proc/self/task/{os.getpid()}/children", "rb") as file:
                children = {int(pid) for pid in file.read().split()}
            for pid in children - known:
                os.waitpid(pid, os.WNOHANG)

    def close(self) -> None:
        """Give up whatever was ordered."""
        for token in list(self._expected):
            self.give_up(token)
        for nursery in self._by_backend.values():
            nursery.orders.close()

    def _nursery(self, wanted: Start, environment: dict[str, str]) -> Nursery | None:
        """The backend's nursery; one for another environment ends when it has done what it was ordered to."""
        backend = wanted.backend
        nursery = self._by_backend.get(backend)
        if nursery is not None and nursery.environment == environment:
            return nursery
        if self._deaths.get(backend, 0) >= MOST_DEATHS:
            return None
        if nursery is not None:
            self._by_backend.pop(backend).orders.close()
        self._count += 1
        share = None if wanted.share is None else wanted.share._replace(affinity=None)
        start = Start(f"{_TOKEN}{self._count}", ROLE, f"nursery of {backend}", "", None, backend, share)
        orders, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its, ExitStack() as undo:
            undo.callback(orders.close)
            orders.setblocking(False)
            child = self._supervisor.start(start, its.fileno(), [backend, _ROOM])
            undo.pop_all()
        self._attend(child)
        self._by_backend[backend] = Nursery(start.peer, environment, orders)
        return self._by_backend[backend]
