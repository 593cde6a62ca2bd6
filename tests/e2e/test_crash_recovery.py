"""Workers and frontends that crash, are killed, stopped or hang: who is answered what, and what comes back."""

import contextlib
import math
import os
import signal
import time
from collections.abc import Callable, Iterator

import numpy as np
import psutil
import pytest
from tritonclient.utils import InferenceServerException

from tests.support.calls import Calls
from tests.support.clients import PROTOCOLS, UNAVAILABLE, Client, status_of
from tests.support.load import Load, echo
from tests.support.repository import (
    ECHO,
    EXIT,
    SEGFAULT,
    WAIT,
    Commands,
    Execution,
    instances,
    write_echo,
    write_identity,
)
from tests.support.server import Server, log_lines
from tests.support.waiting import until

BATCHED = f"max_batch_size: 4\ndynamic_batching {{ max_queue_delay_microseconds: 60000000 }}\n{instances(1)}"
"""Nothing is executed before four requests are there."""


@pytest.fixture(scope="module")
def sturdy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose frontends may die."""
    server = Server(tmp_path_factory.mktemp("sturdy"))
    write_identity(server.repository, "identity")
    with server:
        yield server


@pytest.fixture
def crashing(new_server: Callable[..., Server]) -> Iterator[tuple[Server, Commands, Calls]]:
    """A server with one instance of `commands`, alone."""
    server = new_server()
    model = Commands(server.repository)
    with server:
        yield server, model, Calls(server, model)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("command", "argument", "death"),
    [(SEGFAULT, 0, "killed by signal 11 (SIGSEGV)"), (EXIT, 7, "exited with status 7")],
)
def test_a_request_that_crashes_its_worker_is_tried_again_alone_and_its_batch_mates_succeed(
    new_server: Callable[..., Server], command: int, argument: int, death: str, protocol: str
) -> None:
    server = new_server()
    model = Commands(server.repository, more=BATCHED)
    with server:
        calls = Calls(server, model, batched=True)
        mates = [calls.send(ECHO, number, protocol) for number in (1, 2, 3)]
        with pytest.raises(InferenceServerException) as failure:
            calls.send(command, argument, protocol).result(60)
        assert status_of(failure.value) == UNAVAILABLE[protocol]
        assert death in str(failure.value)
        # What is left of the batch of four waits for company again, until the queue delay is over: give it some.
        answers = [mate.result(60) for mate in mates]
        assert [number for number, _ in answers] == [1, 2, 3]
        first, second = model.executions(command, argument)
        assert first.requests == 4
        assert second.requests == 1
        assert first.pid != second.pid
        until(lambda: server.is_healthy("ready"), 30, "the model is back")


def test_a_model_can_forbid_the_second_try(new_server: Callable[..., Server]) -> None:
    server = new_server()
    forbids = 'parameters { key: "retry_on_crash" value { string_value: "false" } }'
    model = Commands(server.repository, more=f"{instances(1)}\n{forbids}")
    with server:
        calls = Calls(server, model)
        with pytest.raises(InferenceServerException, match="SIGSEGV"):
            calls.send(SEGFAULT).result(60)
        assert len(model.executions(SEGFAULT)) == 1
        assert calls.send(ECHO, 5).result(60)[0] == 5


def test_a_crash_while_another_request_waits_in_the_queue_costs_that_one_nothing(
    crashing: tuple[Server, Commands, Calls],
) -> None:
    server, model, calls = crashing
    with Load(server, [("http", _told(model)), ("grpc", _told(model))]) as load:
        for _ in range(2):
            with pytest.raises(InferenceServerException, match="SIGSEGV"):
                calls.send(SEGFAULT).result(60)
    assert not load.failures
    assert load.outcomes


def _told(model: Commands) -> Callable[[Client, int, int], str]:
    def ask(client: Client, number: int, count: int) -> str:
        argument = number * 1_000_000 + count
        answer = client.infer(model.name, {"IN": model.order(ECHO, argument)})["OUT"]
        return "" if answer[0] == argument else f"wrong answer {answer!r}"

    return ask


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_request_whose_worker_is_killed_from_outside_is_answered_by_another(
    crashing: tuple[Server, Commands, Calls], protocol: str
) -> None:
    _, model, calls = crashing
    answer = calls.send(WAIT, 1, protocol)
    (first,) = until(lambda: model.executions(WAIT, 1), 30, "the request is being executed")
    os.kill(first.pid, signal.SIGKILL)
    until(lambda: len(model.executions(WAIT, 1)) == 2, 30, "the request is executed again")
    model.let_go(1)
    number, pid = answer.result(60)
    assert number == 1
    assert model.executions(WAIT, 1) == [first, Execution(pid, 1)]
    assert pid != first.pid


def test_a_worker_that_is_stopped_and_goes_on_after_its_work_was_retried_changes_no_answer(
    crashing: tuple[Server, Commands, Calls],
) -> None:
    _, model, calls = crashing
    answer = calls.send(WAIT, 1)
    (first,) = until(lambda: model.executions(WAIT, 1), 30, "the request is being executed")
    os.kill(first.pid, signal.SIGSTOP)
    until(lambda: len(model.executions(WAIT, 1)) == 2, 30, "the request is executed again")
    with contextlib.suppress(ProcessLookupError):
        os.kill(first.pid, signal.SIGCONT)
    assert not psutil.pid_exists(first.pid), "the first worker lived on while its work was repeated"
    model.let_go(1)
    number, pid = answer.result(60)
    assert number == 1
    assert model.executions(WAIT, 1) == [first, Execution(pid, 1)]
    assert calls.send(ECHO, 2).result(60)[1] == pid


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_frontend_is_back_in_seconds_and_nobody_else_notices(
    sturdy: Server, protocol: str, number: signal.Signals
) -> None:
    workers = sturdy.pids()
    other = "grpc" if protocol == "http" else "http"
    with Load(sturdy, [(other, echo("identity"))]) as load:
        (frontend,) = sturdy.pids(f"frontends.{protocol}")
        os.kill(frontend, number)
        began = time.monotonic()
        until(lambda: not psutil.pid_exists(frontend), 10, "the frontend is gone")
        until(lambda: _answers(sturdy, protocol), 15, f"{protocol} is served again")
        took = time.monotonic() - began
    assert took < 10, f"{protocol} was away for {took:.1f} s"
    assert not load.failures
    assert load.outcomes
    assert sturdy.pids() == workers


def test_what_killed_frontends_were_to_read_goes_back_to_its_worker(new_server: Callable[..., Server]) -> None:
    server = new_server()
    write_echo(server.repository, "plain", instances(2))
    ordered = "max_batch_size: 4\ndynamic_batching { preserve_ordering: true }\n" + instances(2)
    write_echo(server.repository, "ordered", ordered)
    with server:
        asks = [echo("plain", 1 << 18), _echo_rows]
        with Load(server, [(protocol, ask) for protocol in PROTOCOLS for ask in asks for _ in range(2)]) as load:
            for protocol in PROTOCOLS * 2:
                until(lambda p=protocol: _has_served(server, load, p), 20, f"{protocol} answers")
                os.kill(server.pids(f"frontends.{protocol}")[-1], signal.SIGKILL)
        assert all(outcome.is_cut for outcome in load.failures)
        until(lambda: server.metric("tidepool_instance_shm_used_bytes") == 0, 10, "every block is given back")


def _echo_rows(client: Client, number: int, count: int) -> str:
    question = np.full((1, 1 << 18), number + count / 1000, np.float32)
    return "" if np.array_equal(client.infer("ordered", {"IN": question})["OUT"], question) else "wrong answer"


def _has_served(server: Server, load: Load, protocol: str) -> bool:
    """Answers have come by way of the frontend that there is now."""
    frontends = server.children(f"frontends.{protocol}")
    began = max((frontend.create_time() for frontend in frontends), default=math.inf) - time.time() + time.monotonic()
    return sum(not o.error and o.protocol == protocol and o.began > began for o in load.outcomes) > 3


PARENT = """
import os, subprocess
class TritonPythonModel:
    def initialize(self, args):
        release = os.path.join(os.path.dirname(__file__), "release")
        subprocess.Popen(["sh", "-c", f"until [ -e {release} ]; do sleep 0.02; done; echo late; rm {release}"])
    def execute(self, requests):
        raise NotImplementedError
"""
"""A model whose worker leaves a process behind, which prints something when it may."""


def test_what_is_printed_after_a_death_that_is_not_seen_yet_does_not_end_the_server(
    new_server: Callable[..., Server],
) -> None:
    server = new_server()
    (write_echo(server.repository, "parent") / "1" / "model.py").write_text(PARENT)
    release = server.repository / "parent" / "1" / "release"
    with server:
        for death in (1, 2):  # the second is followed by a pause, in which nothing takes the dead one's descriptors
            (worker,) = until(server.pids, 20, "there is a worker")
            until(lambda: server.is_healthy("ready"), 20, "it is loaded")
            server.process.send_signal(signal.SIGSTOP)  # so that it sees the death and the line in one look
            os.kill(worker, signal.SIGKILL)
            release.touch()
            until(lambda: not release.exists(), 20, "the line is printed")
            server.process.send_signal(signal.SIGCONT)
            until(lambda n=death: len(list(log_lines(server, r"^\[parent_0_0\] late"))) == n, 20, "it is in the log")
        server.wait("ready")
        release.touch()  # the last one's may end, too
        until(lambda: not release.exists(), 20, "nothing is left behind")


def _answers(server: Server, protocol: str) -> bool:
    try:
        with Client(protocol, server, seconds=2) as client:
            return client.infer("identity", {"IN": np.ones(3, np.float32)})["OUT"] is not None
    except Exception:
        return False


def test_a_killed_broker_takes_everything_with_it(new_server: Callable[..., Server]) -> None:
    server = new_server("", "--backend-config=shm-default-size=67108864")
    write_identity(server.repository, "identity", instances(2))
    model = Commands(server.repository)
    server.start()
    calls = Calls(server, model)
    waiting = calls.send(WAIT, 1, "grpc")  # busy: its worker does not look at the fabric
    until(lambda: model.executions(WAIT, 1), 30, "a request is being executed")
    with Client("http", server) as client:
        client.infer("identity", {"IN": np.zeros(1 << 20, np.float32)})
    assert server.shm_regions()
    assert server.stop(signal.SIGKILL) == -signal.SIGKILL  # and asserts that nothing is left within seconds
    with pytest.raises(InferenceServerException):
        waiting.result(60)


def test_an_execution_that_takes_longer_than_allowed_is_killed(new_server: Callable[..., Server]) -> None:
    server = new_server()
    limit = 'parameters { key: "execution_timeout_ms" value { string_value: "400" } }'
    model = Commands(server.repository, more=f"{instances(1)}\n{limit}")
    with server:
        calls = Calls(server, model)
        with pytest.raises(InferenceServerException, match="hung: execution exceeded execution_timeout_ms") as failure:
            calls.send(WAIT, 1).result(60)
        assert status_of(failure.value) == "503"
        assert len(model.executions(WAIT, 1)) == 2
        assert calls.send(ECHO, 5).result(60)[0] == 5
        assert list(log_lines(server, "hung"))


def test_a_model_that_crashes_while_it_loads_fails_with_the_reason(new_server: Callable[..., Server]) -> None:
    server = new_server("", "--exit-on-error=false")
    write_identity(server.repository, "identity")
    bad = Commands(server.repository, load="die")
    bad.be_bad(True)
    with server.start(wait="live"):
        until(lambda: _answers(server, "http"), 30, "the other model serves")
        reason = r"died while loading: killed by signal 11 \(SIGSEGV\); last output: about to load badly"
        until(lambda: list(log_lines(server, reason)), 30, "the log says why")
        assert not server.is_healthy("ready")
        with Client("http", server) as client:
            assert not client.raw.is_model_ready("commands")
            with pytest.raises(InferenceServerException, match="has no available versions"):
                client.infer("commands", {"IN": bad.order(ECHO)})


def test_a_worker_that_keeps_dying_is_restarted_ever_more_rarely_and_its_requests_wait(
    new_server: Callable[..., Server],
) -> None:
    server = new_server()
    model = Commands(server.repository, load="die")
    with server:
        calls = Calls(server, model)
        (pid,) = server.pids()
        model.be_bad(True)
        os.kill(pid, signal.SIGKILL)
        deaths = "worker died: killed by signal 11"
        until(lambda: len(list(log_lines(server, deaths))) >= 3, 30, "three starts have failed")
        answer = calls.send(ECHO, 1)
        assert not server.is_healthy("ready")
        began, before = time.monotonic(), len(list(log_lines(server, deaths)))
        until(lambda: len(list(log_lines(server, deaths))) > before, 30, "the next start has failed")
        assert time.monotonic() - began > 0.5, "it starts again without a pause"
        model.be_bad(False)
        assert answer.result(60)[0] == 1
        assert server.is_healthy("ready")
