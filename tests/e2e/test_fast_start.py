"""Workers that are forked: as good as those that are started, and none depends on the process that has forked it."""

import json
import os
import signal
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from tests.support.clients import Client
from tests.support.load import echo
from tests.support.repository import Commands, instances, tensor, write_identity, write_model
from tests.support.server import Server
from tests.support.waiting import until

SECONDS = 60.0
READY = "tidepool_instance_ready"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("forked"), "")
    io = f"input [ {tensor('IN')} ]\noutput [ {tensor('OUT', 'TYPE_STRING', '[ 1 ]')} ]\n"
    for name in ("about", "about_too"):
        write_model(server.repository, name, f'backend: "python"\n{io}{instances(1)}\n', "about")
    write_identity(server.repository, "scaled", instances(2))
    with server:
        yield server


def facts(server: Server, model: str = "about") -> dict[str, object]:
    with Client("http", server) as client:
        (text,) = client.infer(model, {"IN": np.ones(1, np.float32)})["OUT"]
    found: dict[str, object] = json.loads(text)
    os.kill(int(str(found["left"])), signal.SIGKILL)
    return found


def nurseries(server: Server) -> list[int]:
    return server.pids("workers.nursery")


def test_a_forked_worker_is_as_one_that_was_started(server: Server) -> None:
    found, other = facts(server), facts(server, "about_too")
    assert found["parent"] == server.process.pid
    assert found["pid"] in server.pids("workers")
    assert found["devices"] == ""
    assert found["main"] == "workers.__main__"
    assert found["spawned"] == 1
    for generator in ("random", "numpy random"):
        assert found[generator] != other[generator]


def test_workers_live_on_without_their_nursery_and_more_of_them_come(server: Server) -> None:
    before, workers = set(nurseries(server)), set(server.pids())
    assert len(before) == 2  # of python and identity
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    until(lambda: not before & set(nurseries(server)), SECONDS, "they are dead")
    config = server.repository / "scaled" / "config.pbtxt"
    server.edit("count: 2", "count: 4", config)
    until(lambda: server.metric(READY, model="scaled") == 4, SECONDS, "four instances are ready")
    assert workers < set(server.pids())
    assert len(nurseries(server)) == 1
    with Client("http", server) as client:
        assert all(echo("scaled")(client, 1, number) == "" for number in range(8))


def test_a_worker_that_dies_is_started_again(server: Server) -> None:
    victim = int(str(facts(server)["pid"]))
    os.kill(victim, signal.SIGKILL)
    until(lambda: victim not in server.pids(), SECONDS, "it is gone")
    until(lambda: server.metric(READY, model="about") == 1, SECONDS, "there is another")
    assert facts(server)["pid"] != victim


def test_what_a_dead_worker_leaves_behind_is_buried(server: Server) -> None:
    with Client("http", server) as client:
        (text,) = client.infer("about", {"IN": np.ones(1, np.float32)})["OUT"]
    found = json.loads(text)
    os.kill(found["pid"], signal.SIGKILL)
    left = psutil.Process(found["left"])
    until(lambda: left.ppid() == server.process.pid, SECONDS, "it is the broker's")
    left.kill()
    until(lambda: not left.is_running(), SECONDS, "it is no zombie")


def test_nothing_is_left_of_a_server_that_was_killed(new_server: Callable[..., Server]) -> None:
    server = new_server()
    write_identity(server.repository, "m", instances(3))
    server.start()
    assert len(nurseries(server)) == 1
    assert server.stop(signal.SIGKILL) == -signal.SIGKILL


def loading(server: Server) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"http://{server.address('http')}/v2/health/loading", timeout=30) as answer:
        rows: list[dict[str, Any]] = json.load(answer)["loading"]
    return rows


def test_one_loads_after_the_other_and_what_they_take_is_remembered(
    new_server: Callable[..., Server], tmp_path: Path
) -> None:
    server = new_server("", "--model-load-thread-count=1", env={"XDG_CACHE_HOME": str(tmp_path / "cache")})
    slow = Commands(server.repository, "a_slow", load="hang")
    slow.be_bad(True)
    write_identity(server.repository, "b_waits")
    with server.start(wait="live"):
        phases = {"a_slow_0_0": "load", "b_waits_0_0": "queued"}
        until(lambda: {row["instance"]: row["phase"] for row in loading(server)} == phases, SECONDS, "one loads")
        assert len(server.pids()) == 1
        assert all(row["expected_byte_size"] >= 32 << 20 for row in loading(server))
        until(lambda: "loading a_slow_0_0 (load)" in server.log(), SECONDS, "the log says so")
        slow.be_bad(False)
        os.kill(server.pids()[0], signal.SIGKILL)
        until(lambda: server.metric(READY, model="a_slow") == 1, SECONDS, "it has loaded")
        until(lambda: server.metric(READY, model="b_waits") == 1, SECONDS, "and so has the other")
        assert loading(server) == []
        remembered = tmp_path / "cache" / "tidepool" / "loads.json"
        until(lambda: remembered.exists() and len(json.loads(remembered.read_text())) == 2, SECONDS, "it is remembered")
    assert {Path(path).name for path in json.loads(remembered.read_text())} == {"a_slow", "b_waits"}
