"""Workers and the processors that they get."""

import os
from collections.abc import Callable

import psutil
import pytest

from broker import processors
from broker.child import THREADS
from tests.support.repository import write_echo
from tests.support.server import Server, log_lines
from tests.support.waiting import until

CORE = max(os.sched_getaffinity(0))


def threads(process: psutil.Process) -> tuple[str, str]:
    """What the process was started with: our number, OpenMP's."""
    return process.environ()[THREADS], process.environ()["OMP_NUM_THREADS"]


def test_workers_get_their_part_and_the_cores_of_their_host_policy(
    new_server: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    server = new_server("", f"--host-policy=one,cpu-cores={CORE}-{CORE}", "--host-policy=none,cpu-cores=60000")
    group = 'instance_group [ {{ count: {} kind: KIND_CPU host_policy: "{}" }} ]'
    write_echo(server.repository, "bound", group.format(2, "one"))
    write_echo(server.repository, "free", group.format(1, ""))
    with server:
        everywhere = os.sched_getaffinity(0)
        found = sorted((sorted(p.cpu_affinity()), threads(p)) for p in server.children("workers"))
        free = (sorted(everywhere), (str(processors.find().usable()),) * 2)
        assert found == sorted([([CORE], ("1", "1")), ([CORE], ("1", "1")), free])
        (frontend,) = server.children("frontends.grpc")
        assert threads(frontend) == ("1", "1")
        (warning,) = log_lines(server, "host policy 'none' has no effect")
        assert "the server may use none of its cores" in warning

        server.edit("count: 1", "count: 2", server.repository / "free" / "config.pbtxt")
        until(lambda: len(server.pids()) == 4, 60.0, "another worker")
        newest = server.children("workers")[-1]
        assert threads(newest)[0] == str(max(1, processors.find().usable() // 2))
