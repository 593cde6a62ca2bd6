"""Workers and frontends killed and stopped at random under load: who met no killed frontend is answered, and right."""

import bisect
import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import psutil
import pytest

from tests.support.load import Load, Outcome, echo
from tests.support.repository import instances, write_echo, write_identity
from tests.support.server import Server
from tests.support.waiting import until

REFUSED_SECONDS = 1.0
"""gRPC connections may be refused for so long after a frontend's kill: there is no listening socket to wait in."""


class Kill(NamedTuple):
    """Just before a process was killed, what it was, and the signal."""

    moment: float
    role: str
    number: signal.Signals


def test_25_kills(new_server: Callable[..., Server]) -> None:
    _survive(new_server("", "--grpc-frontends=2"), 25)


@pytest.mark.large
@pytest.mark.timeout(600)
def test_100_kills(new_server: Callable[..., Server]) -> None:
    _survive(new_server("", "--http-frontends=2", "--grpc-frontends=2"), 100)


def _survive(server: Server, count: int) -> None:
    write_identity(server.repository, "identity", instances(2))
    write_echo(server.repository, "echo", instances(2))
    asks = [(protocol, echo(model, size)) for protocol in ("http", "grpc") for model, size in QUESTIONS]
    seed = random.randrange(1 << 32)
    print(f"random seed {seed}")
    with server:
        roles = {role: len(server.pids(role)) for role in ROLES}
        with Load(server, asks) as load:
            kills = _kill_at_random(server, count, random.Random(seed), load)
            until(lambda: {role: len(server.pids(role)) for role in ROLES} == roles, 30, "every process is back")
            until(lambda: not [c for c in server.children() if c.status() == "stopped"], 30, "nobody is stopped")
            until(lambda: server.is_healthy("ready"), 60, "the server is ready")
            settled = time.monotonic()
            until(lambda: _all_have_answered_since(load, settled), 60, "every client is answered again")
        outcomes, unexcused = load.outcomes, []
        counts: Counter[str] = Counter()
        for outcome in outcomes:
            kind = _judge(outcome, kills)
            counts[f"{outcome.protocol} {kind}"] += 1
            if kind == "failed":
                unexcused.append(outcome)
        print(f"{count} kills: {dict(Counter(f'{kill.number.name} {kill.role}' for kill in kills))}")
        print(f"{len(outcomes)} requests: {dict(sorted(counts.items()))}")
        assert not unexcused
        until(lambda: not _unknown_regions(server), 5, "only living processes have shared memory")


ROLES = ("workers", "frontends.http", "frontends.grpc")
QUESTIONS = (("identity", 16), ("echo", 16), ("identity", 50_000), ("echo", 50_000)) * 2


def _kill_at_random(server: Server, count: int, chance: random.Random, load: Load) -> list[Kill]:
    """Kill `count` random processes, at random moments, each while requests are answered; some workers are stopped."""
    kills: list[Kill] = []
    while len(kills) < count:
        pause = time.monotonic() + chance.uniform(0.05, 0.5)
        until(lambda: time.monotonic() > pause, 5, "a random moment")  # noqa: B023
        answered = len(load.outcomes)
        until(lambda: len(load.outcomes) > answered, 60, "requests are answered")  # noqa: B023
        role = chance.choice(("workers", "workers", "workers", "frontends.http", "frontends.grpc"))
        victims = server.children(role)
        if role == "frontends.grpc":
            victims = _spare(victims)
        if victims:
            is_stop = role == "workers" and chance.random() < 0.2
            kills.append(Kill(time.monotonic(), role, signal.SIGSTOP if is_stop else signal.SIGKILL))
            with contextlib.suppress(psutil.NoSuchProcess):
                chance.choice(victims).send_signal(kills[-1].number)
    return kills


def _spare(frontends: list[psutil.Process]) -> list[psutil.Process]:
    """Those of which another one serves: on a busy machine a new one may take longer than REFUSED_SECONDS to come."""
    serving = [frontend for frontend in frontends if time.time() - frontend.create_time() > 5]
    return [frontend for frontend in frontends if any(frontend != other for other in serving)]


def _judge(outcome: Outcome, kills: list[Kill]) -> str:
    """`answered`, `cut` (its connection was open at a frontend's kill), `refused` (gRPC, soon after) or `failed`."""
    if not outcome.error:
        return "answered"
    moments = [kill.moment for kill in kills if kill.role == f"frontends.{outcome.protocol}"]
    place = bisect.bisect_right(moments, outcome.ended)
    latest = moments[place - 1] if place else float("-inf")
    if outcome.is_cut and latest >= outcome.fresh_at:
        return "cut"
    if outcome.is_cut and outcome.protocol == "grpc" and outcome.began - latest <= REFUSED_SECONDS:
        return "refused"
    return "failed"


def _all_have_answered_since(load: Load, moment: float) -> bool:
    """Every client has had an answer to a request sent after `moment`."""
    return all(any(o.began > moment and not o.error for o in each[-20:]) for each in load.by_client)


def _unknown_regions(server: Server) -> list[str]:
    """Regions of shared memory that no living child of the server has mapped."""
    mapped = set()
    for child in server.children():
        with contextlib.suppress(psutil.Error):
            mapped |= {os.path.basename(entry.path) for entry in child.memory_maps(grouped=True)}
    return [region.name for region in server.shm_regions() if region.name not in mapped]
