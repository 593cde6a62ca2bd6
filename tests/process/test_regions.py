"""Shared memory of a real server: what dead processes leave is removed, and unmapped by those who read it."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.support.clients import Client
from tests.support.repository import Commands, instances, write_echo
from tests.support.server import SHM, Server
from tests.support.waiting import until

SECONDS = 10.0
LARGE = 1 << 20  # floats


def regions_of(server: Server, token: str) -> list[str]:
    return [path.name for path in SHM.glob(f"tidepool-{server.remember_id()}-{token}-*")]


def token_of(process: psutil.Process) -> str:
    """The process's name on the fabric."""
    command = process.cmdline()
    return command[command.index("-m") + 3]


def mapped(process: psutil.Process, token: str) -> list[str]:
    """The regions of a process that another one maps, also when their names are gone."""
    maps = Path(f"/proc/{process.pid}/maps").read_text().splitlines()
    return sorted({line.split("/dev/shm/")[1] for line in maps if f"-{token}-" in line})


def echo(server: Server, model: str = "echo") -> None:
    data = np.arange(LARGE, dtype=np.float32)
    with Client("http", server) as client:
        np.testing.assert_array_equal(client.infer(model, {"IN": data})["OUT"], data)


def test_a_worker_that_is_killed_while_it_loads_leaves_nothing(new_server: Callable[..., Server]) -> None:
    server = new_server("", "--exit-on-error=false")
    commands = Commands(server.repository, "slow", load="hang")
    commands.be_bad(True)
    with server.start("live"):
        for _ in range(3):
            (worker,) = until(lambda: server.children("workers"), SECONDS, "a worker")
            token = token_of(worker)
            until(lambda: regions_of(server, token), SECONDS, "it has made a region")  # noqa: B023
            worker.kill()
            until(lambda: not regions_of(server, token), SECONDS, "its region is gone")  # noqa: B023
        commands.be_bad(False)


@pytest.mark.parametrize(("dying", "reading"), [("workers", "frontends.http"), ("frontends.http", "workers")])
def test_the_memory_of_a_killed_process_is_unmapped_by_its_readers(
    new_server: Callable[..., Server], dying: str, reading: str
) -> None:
    server = new_server()
    write_echo(server.repository, "echo")
    with server:
        echo(server)
        (killed,), (reader,) = server.children(dying), server.children(reading)
        token = token_of(killed)
        assert mapped(reader, token)
        os.kill(killed.pid, signal.SIGKILL)
        until(lambda: not regions_of(server, token), SECONDS, "its regions have no name")
        until(lambda: not mapped(reader, token), SECONDS, "nobody maps them")
        until(lambda: server.is_healthy("ready"), SECONDS, "the server is ready again")
        echo(server)


def test_regions_that_were_needed_for_a_moment_go_again(new_server: Callable[..., Server]) -> None:
    small = "--backend-config=python,shm-default-byte-size=1048576"
    server = new_server("", small, "--backend-config=python,shm-growth-byte-size=1048576")
    write_echo(server.repository, "echo", instances(2))
    with server:
        workers = server.children("workers")
        before = {token: regions_of(server, token) for token in map(token_of, workers)}
        for _ in range(4):
            echo(server)
        assert any(len(regions_of(server, token)) > len(before[token]) for token in before)
        until(lambda: {t: regions_of(server, t) for t in before} == before, SECONDS, "only the first regions are left")
        until(lambda: server.shm_bytes() < 1 << 20, SECONDS, "their memory is returned")
        (frontend,) = server.children("frontends.http")
        until(lambda: all(len(mapped(frontend, token)) == 1 for token in before), SECONDS, "and unmapped")
        echo(server)
