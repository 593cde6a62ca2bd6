"""The server's own life: its start, its drain, its end, and what is left of one that was killed."""

import os
import re
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from geventhttpclient.response import HTTPConnectionClosed
from tritonclient.utils import InferenceServerException

from tests.support.calls import Calls
from tests.support.clients import PROTOCOLS, Client
from tests.support.http import ask
from tests.support.repository import WAIT, Commands, instances, write_identity
from tests.support.server import SHM, Server, run_to_exit
from tests.support.waiting import until


def test_the_server_is_live_while_its_models_load_and_says_how_far_it_is(new_server: Callable[..., Server]) -> None:
    server = new_server()
    write_identity(server.repository, "quick")
    slow = Commands(server.repository, "slow", load="hang")
    slow.be_bad(True)
    began = time.monotonic()
    with server.start(wait="live"):
        assert time.monotonic() - began < 10
        until(lambda: "loading: 1 of 2 model versions done, loading slow_0_0" in server.log(), 30, "progress is shown")
        assert not server.is_healthy("ready")
        with Client("http", server) as client:
            assert client.infer("quick", {"IN": np.ones(3, np.float32)})["OUT"] is not None


def test_the_tables_show_models_versions_instances_and_ports(new_server: Callable[..., Server]) -> None:
    server = new_server()
    write_identity(server.repository, "m", instances(2))
    with server:
        log = server.log()
        assert re.search(r"^\| m +\| 1 +\| READY +\|$", log, re.M)
        for number, pid in enumerate(server.pids()):
            assert re.search(rf"^\| m +\| 1 +\| m_0_{number} +\| {pid} +\| CPU +\| ready \|$", log, re.M)
        assert set(server.ports()) == {"http", "grpc", "metrics"}
        assert re.search(r"ready after \d+\.\d\d s$", log, re.M)
        assert "\x1b" not in log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_server_ends_at_once(new_server: Callable[..., Server], number: int) -> None:
    server = new_server()
    write_identity(server.repository, "m")
    server.start()
    began = time.monotonic()
    assert server.stop(number) == 0
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_drain_finishes_what_is_under_way_and_takes_nothing_new(
    new_server: Callable[..., Server], protocol: str
) -> None:
    server = new_server()
    model = Commands(server.repository)
    server.start()
    calls = Calls(server, model)
    with Client("http", server) as over_http, Client("grpc", server) as over_grpc:
        for client in (over_http, over_grpc):
            assert client.raw.is_server_ready()
        executing, queued = calls.send(WAIT, 1, protocol), calls.send(WAIT, 2, protocol)
        until(lambda: model.executions(WAIT, 1) or model.executions(WAIT, 2), 30, "a request is being executed")
        with Client(protocol, server) as client:
            until(lambda: server.metric("nv_inference_pending_request_count", model="commands"), 30, "one is queued")
        server.process.send_signal(signal.SIGTERM)
        for client in (over_http, over_grpc):
            until(lambda: not client.raw.is_server_ready(), 10, "not ready")  # noqa: B023
            with pytest.raises(InferenceServerException, match="Server is stopping"):
                client.infer("commands", {"IN": model.order(WAIT, 3)})
        for number in (1, 2):
            model.let_go(number)
        assert [call.result(30)[0] for call in (executing, queued)] == [1, 2]
    assert server.wait_for_exit() == 0


def test_a_server_that_leaves_serves_until_nobody_sends_any_more(new_server: Callable[..., Server]) -> None:
    server = new_server("", "--drain-delay-secs=600")
    write_identity(server.repository, "m")
    server.start()
    with Client("http", server) as client, Client("grpc", server) as grpc:
        server.process.send_signal(signal.SIGTERM)
        for each in (client, grpc):
            until(lambda: not each.raw.is_server_ready(), 10, "not ready")  # noqa: B023
            assert each.raw.is_server_live()
            assert each.raw.is_model_ready("m")
            assert each.infer("m", {"IN": np.ones(3, np.float32)})["OUT"].tolist() == [1, 1, 1]
        verbose = ask(server.address("http"), "GET", "/v2/health/ready?verbose")
        assert (verbose.status, verbose.json["reason"]) == (400, "draining")
    assert server.stop(signal.SIGINT) == 0, "who does not want to wait"


def test_a_drain_that_takes_too_long_is_cut_off(new_server: Callable[..., Server]) -> None:
    server = new_server("", "--exit-timeout-secs=1")
    model = Commands(server.repository)
    server.start()
    stuck = Calls(server, model).send(WAIT, 1)
    until(lambda: model.executions(WAIT, 1), 30, "a request is being executed")
    began = time.monotonic()
    assert server.stop() == 1
    assert 1 <= time.monotonic() - began < 15
    assert "Exit timeout expired" in server.log()
    with pytest.raises((InferenceServerException, HTTPConnectionClosed, OSError)):
        stuck.result(30)


def test_a_server_whose_models_never_load_can_be_ended(new_server: Callable[..., Server]) -> None:
    server = new_server()
    model = Commands(server.repository, load="hang")
    model.be_bad(True)
    server.start(wait="live")
    assert server.stop() == 0


def test_a_port_that_is_taken_is_named(new_server: Callable[..., Server], tmp_path: Path) -> None:
    server = new_server()
    write_identity(server.repository, "m")
    with server:
        for role, port in server.ports().items():
            second = Server(tmp_path / f"second_{role}", "", f"--{role}-port={port}")
            write_identity(second.repository, "m")
            status, log = run_to_exit(second)
            assert status == 1
            (line,) = log.splitlines()
            assert re.fullmatch(rf"error: cannot serve {role} on '\S+:{port}': .*--{role}-port.*", line)


def test_the_next_server_removes_what_a_killed_one_could_not(new_server: Callable[..., Server], tmp_path: Path) -> None:
    server = new_server()
    write_identity(server.repository, "m")
    server.start()
    with Client("http", server) as client:
        client.infer("m", {"IN": np.ones(100_000, np.float32)})
    server.remember_id()
    for pid in [*server.pids("broker.repository"), server.process.pid]:  # nobody is left to clean up
        os.kill(pid, signal.SIGKILL)
    server.process.wait(10)
    until(lambda: not any(left.startswith("process") for left in server.remains()), 10, "all processes have ended")
    assert list(SHM.glob(f"tidepool-{server.id}-*"))
    (directory,) = Path(tempfile.gettempdir()).glob(f"tidepool-*-{server.id}")
    os.utime(directory, (0, 0))  # a young one may belong to a server that is just starting
    follower = Server(tmp_path / "follower")
    write_identity(follower.repository, "m")
    with follower:
        assert not server.remains()
    assert server.wait_for_exit() == -signal.SIGKILL
