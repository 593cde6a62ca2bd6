"""Fuzz targets on the fabric: the core in this process, and a broker's socket."""

import contextlib
import os
import random
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import zmq

from broker.core import Core, Frontends
from broker.effects import Effect, Exit, Kill, Start
from broker.messages import (
    PROTOCOL,
    Hello,
    Loaded,
    ModelDescribed,
    ProtocolError,
    RepositoryScanned,
    Serving,
    decode,
    encode,
)
from broker.requests import Death
from configs.model import describe
from configs.server import ServerConfig, load
from tests.fuzz import fabric_inputs
from tests.fuzz.tally import Tally
from tests.fuzz.targets import Budget
from tests.fuzz.watch import is_fine
from tests.golden.configurations import MODELS
from tests.support.server import Server
from tests.support.waiting import until

LIFE = 500
"""Inputs that one core is given."""
LIVES = 6
"""Peers that are played to a broker, one after the other."""
SERVED = ("add_sub", "identity_fp32", "matrix")
SECONDS = 20.0


class Play:
    """A core with its peers, none of which is a process: what it wants done is done at once."""

    def __init__(self, config: ServerConfig) -> None:
        """Begin, with models that serve."""
        self._now = 100.0
        self.core = Core(config, Frontends({"http": 1, "grpc": 1, "metrics": 1}, {}), 0.0)
        self._do(self.core.begin(self._now))
        repository = self.token_of("repository")
        for model in SERVED:
            description = describe(MODELS / model, None, config, ())
            self._do(self.core.handle(repository, [ModelDescribed(description.to_wire())], self._now))
        self._do(self.core.handle(repository, [RepositoryScanned()], self._now))

    def token_of(self, role: str) -> str:
        """A peer of this role."""
        return next(token for token, peer in self.core.peers.items() if peer.role == role)

    def wait(self, seconds: float) -> None:
        """Time passes, until there is a peer."""
        self._now += seconds
        while not self.core.peers:  # all are dead; they are started again later and later
            self._now = self.core.next_deadline()
            self._do(self.core.tick(self._now))

    def take(self, peer: str, data: bytes) -> str:
        """A packed list arrives from a peer; what was wrong with it. Any exception would end the broker."""
        text = ""
        try:
            for message in decode(data):
                self._do(self.core.handle(peer, [message], self._now))
        except ProtocolError as error:
            text = str(error)
            self._do(self.core.malformed(peer, text, self._now))
        if self._now >= self.core.next_deadline():
            self._do(self.core.tick(self._now))
        return text

    def _do(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Start):
                self.core.started(effect.peer, 4321, self._now)
                self._do(self.core.handle(effect.peer, [Hello(PROTOCOL, effect.role, 4321)], self._now))
                if effect.role != "repository":
                    first = Loaded((), (), {}, False) if effect.role == "worker" else Serving()
                    self._do(self.core.handle(effect.peer, [first], self._now))
            elif isinstance(effect, Exit):
                raise AssertionError(f"the broker would exit with status {effect.status}")
            elif isinstance(effect, Kill) and effect.peer in self.core.peers:
                self._do(self.core.lost(effect.peer, Death("was killed", False, 0, ()), self._now))


def messages(directory: Path, budget: Budget) -> Tally:
    """Broken messages are decoded, and handled by a core when they can be."""
    tally = Tally("fabric messages")
    config = load([f"--model-repository={directory}", "--exit-on-error=false"])
    play = None
    for rng in budget.turns(tally):
        if play is None or tally.answers % LIFE == 0:
            play = Play(config)
        play.wait(rng.choice((0.0, 0.001, 0.5)))
        peer = rng.choice(list(play.core.peers.values()))
        data = fabric_inputs.packed(rng, peer.role)
        tally.add(data)
        try:
            tally.heard(play.take(peer.token, data))
        except Exception as error:
            raise AssertionError(f"{error!r} about {data!r}") from error
    return tally


# ----------------------------------------------------------------------------------------------- a broker's socket


def socket_of(server: Server) -> tuple[str, str]:
    """The path of a broker's socket, and the token of one of its HTTP frontends."""
    command = server.children("frontends.http")[0].cmdline()
    return command[4], command[5]


def sockets(server: Server, budget: Budget) -> Tally:
    """Strangers with broken messages, connections that are none, and impostors: peers of the broker's own that lie."""
    tally = Tally("fabric sockets")
    path, _ = socket_of(server)
    rng = random.Random(f"{budget.seed} lives")
    for _ in range(LIVES):
        _impersonate(server, rng, tally)
    with contextlib.ExitStack() as stack:
        context = stack.enter_context(zmq.Context())
        context.linger = 0
        for number, rng in enumerate(budget.turns(tally)):
            if number % 200 == 0:
                stranger = stack.enter_context(context.socket(zmq.DEALER))
                stranger.set(
                    zmq.IDENTITY, rng.choice((b"x", b"f1", b"\xff" * 200, rng.randbytes(9).replace(b"\0", b"1")))
                )
                stranger.connect(f"ipc://{path}")
            data = fabric_inputs.packed(rng)
            tally.add(data)
            with contextlib.suppress(zmq.Again):
                stranger.send_multipart([data] * rng.choice((1, 1, 1, 1, 2, 3)), zmq.NOBLOCK)
            if number % 20 == 0:
                _no_zmq(path, rng)
    return tally


def _no_zmq(path: str, rng: random.Random) -> None:
    """Bytes that are not ZeroMQ's protocol."""
    with socket.socket(socket.AF_UNIX) as connection, contextlib.suppress(OSError):
        connection.settimeout(1)
        connection.connect(path)
        greeting = b"\xff" + bytes(8) + b"\x7f\x03\x01NULL" + bytes(48)
        connection.sendall(
            rng.choice((rng.randbytes(64), greeting, greeting + rng.randbytes(50), b"GET / HTTP/1.1\r\n\r\n"))
        )


def _impersonate(server: Server, rng: random.Random, tally: Tally) -> None:
    """Kill a frontend, stop the next one before it can speak, and speak in its name until the broker kills it."""
    child = _newborn(server)
    path, token = child.cmdline()[4:6]
    with zmq.Context() as context, context.socket(zmq.DEALER) as impostor:
        impostor.set(zmq.IDENTITY, token.encode())
        impostor.set(zmq.LINGER, 0)
        impostor.connect(f"ipc://{path}")
        impostor.send(encode([Hello(PROTOCOL, "http", child.pid)]))
        end = time.monotonic() + SECONDS
        while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
            for _ in range(20):
                data = _well_formed(rng)
                tally.add(data)
                impostor.send(data)
            tally.heard("")
            assert time.monotonic() < end, "the broker does not kill a peer that lies"
            time.sleep(0.01)


def _newborn(server: Server) -> psutil.Process:
    """An HTTP frontend of the broker's that has not said anything yet, and will not."""
    until(lambda: is_fine(server), SECONDS, "there is an HTTP frontend")
    before = server.pids("frontends.http")
    os.kill(before[0], signal.SIGKILL)
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        for child in server.children("frontends.http"):
            if child.pid not in before:
                child.send_signal(signal.SIGSTOP)
                return child
    raise AssertionError("no new frontend is started")


def _well_formed(rng: random.Random) -> bytes:
    """A packed list that can be decoded."""
    return next(data for data in _endless(rng) if _can_be_decoded(data))


def _endless(rng: random.Random) -> Iterator[bytes]:
    while True:
        yield fabric_inputs.packed(rng)


def _can_be_decoded(data: bytes) -> bool:
    try:
        return bool(decode(data))
    except ProtocolError:
        return False
