"""A model, a repository or a reader of the log that misbehaves: the other models do not notice."""

import os
import select
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from tests.support.calls import Calls
from tests.support.clients import Client
from tests.support.repository import PRINT, Commands, instances, tensor, write_identity, write_model
from tests.support.server import Server, log_lines
from tests.support.waiting import until

NAMES = ("broker", "configs", "frontends", "shm", "tests", "workers")

MODEL = """
import broker, configs, frontends, shm, tests, workers, helper
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        import configs.late
        whose = [broker.WHOSE, configs.WHOSE, frontends.WHOSE, shm.WHOSE, tests.WHOSE, workers.WHOSE]
        whose += [configs.late.WHOSE, helper.WHOSE]
        answer = pb_utils.Tensor("OUT", np.array(whose, np.object_))
        return [pb_utils.InferenceResponse([answer]) for _ in requests]
"""


def write_namesakes(directory: Path, whose: str) -> None:
    """Modules and packages that are called as ours are."""
    for name in NAMES:
        if name in ("configs", "tests"):
            (directory / name).mkdir(parents=True)
            (directory / name / "__init__.py").write_text(f"WHOSE = {whose!r}\n")
            (directory / name / "late.py").write_text(f"WHOSE = {whose!r}\n")
        else:
            (directory / f"{name}.py").write_text(f"WHOSE = {whose!r}\n")


@pytest.mark.parametrize("place", ["1", "."], ids=["version directory", "model directory"])
def test_a_model_may_have_modules_named_as_ours(new_server: Callable[..., Server], place: str) -> None:
    server = new_server()
    io = f"input [ {tensor('IN')} ] output [ {tensor('OUT', 'TYPE_STRING')} ]"
    directory = write_model(server.repository, "m", f'backend: "python" {io} {instances(1)}')
    write_namesakes(directory / place, "the model's")
    (directory / place / "helper.py").write_text('WHOSE = "the model\'s"\n')
    (directory / "1" / "model.py").write_text(MODEL)
    with server, Client("http", server) as client:
        answer = client.infer("m", {"IN": np.ones(1, np.float32)})["OUT"]
        assert set(answer.tolist()) == {b"the model's"}


def test_the_working_directory_may_have_modules_named_as_ours(new_server: Callable[..., Server]) -> None:
    server = new_server()
    write_identity(server.repository, "identity")
    model = Commands(server.repository)
    server.cwd = server.directory / "working"
    server.cwd.mkdir()
    write_namesakes(server.cwd, "the working directory's")
    for name in ("numpy", "zmq", "aiohttp", "grpc"):
        (server.cwd / f"{name}.py").write_text("raise RuntimeError('not this one')\n")
    server.launcher = [sys.executable, "-P", "-m", "broker"]  # -P: else Python itself would take broker.py
    with server:
        assert Calls(server, model).send(0, 3, "grpc").result(30)[0] == 3
        with Client("http", server) as client:
            assert client.infer("identity", {"IN": np.ones(3, np.float32)})["OUT"] is not None


# ------------------------------------------------------------------------------------------- latency


class Probe:
    """Asks one model all the time, one request after another, and takes down how long each took, in seconds."""

    def __init__(self, server: Server, model: str) -> None:
        """Nothing is sent before `watch`."""
        self._server, self._model = server, model
        self.took: list[float] = []

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Ask as long as the block lasts; any error fails the test."""
        stop, errors = threading.Event(), []

        def run() -> None:
            try:
                with Client("http", self._server) as client:
                    while not stop.is_set():
                        began = time.perf_counter()
                        client.infer(self._model, {"IN": np.ones(16, np.float32)})
                        self.took.append(time.perf_counter() - began)
                        stop.wait(0.002)
            except Exception as error:
                errors.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(60)
        assert not errors
        assert not thread.is_alive()

    def usual(self) -> float:
        """The median so far; forgets what was measured."""
        took, self.took = self.took, []
        assert len(took) >= 50
        return statistics.median(took)


def assert_unchanged(usual: float, now: float) -> None:
    """Within what a busy machine does to a latency; a stall is hundreds of milliseconds."""
    print(f"median latency: {usual * 1e3:.2f} ms before, {now * 1e3:.2f} ms now")
    assert now < 4 * usual + 0.010


def test_a_repository_that_hangs_leaves_the_latency_of_requests_unchanged(new_server: Callable[..., Server]) -> None:
    server = new_server()
    config = write_identity(server.repository, "hanging") / "config.pbtxt"
    write_identity(server.repository, "probed")
    with server:
        probe = Probe(server, "probed")
        with probe.watch():
            until(lambda: len(probe.took) > 200, 60, "the usual latency is known")
            usual = probe.usual()
            good = config.read_text()
            config.unlink()
            os.mkfifo(config)  # to open it takes until somebody writes
            writer = until(lambda: _open_when_read(config), 30, "the repository process opens the file")
            until(lambda: len(probe.took) > 200, 60, "the latency is measured again")
        assert_unchanged(usual, probe.usual())
        config.unlink()
        config.write_text(good.replace("count: 1", "count: 2"))
        os.close(writer)
        until(lambda: len(server.pids()) == 3, 30, "the edit is seen once the file system answers again")


def _open_when_read(fifo: Path) -> int:
    """A descriptor for writing, once somebody waits for what will be written; 0 before."""
    try:
        return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return 0


def test_a_server_ends_although_its_repository_hangs(new_server: Callable[..., Server]) -> None:
    server = new_server()
    config = write_identity(server.repository, "m") / "config.pbtxt"
    with server:
        config.unlink()
        os.mkfifo(config)
        writer = until(lambda: _open_when_read(config), 30, "the repository process opens the file")
    os.close(writer)


def test_a_model_that_prints_100_mb_to_a_log_that_nobody_reads_delays_nobody(
    new_server: Callable[..., Server],
) -> None:
    server = new_server()
    noisy = Commands(server.repository)
    write_identity(server.repository, "probed")
    read, write = os.pipe()
    server.start(wait="", output=write)
    os.close(write)
    _copy_until(read, server, "ready after")  # then nobody reads any more
    with server:
        server.wait("ready")
        probe = Probe(server, "probed")
        with probe.watch():
            until(lambda: len(probe.took) > 200, 60, "the usual latency is known")
            usual = probe.usual()
            answer = Calls(server, noisy).send(PRINT, 100_000)
            assert answer.result(60)[0] == 100_000
            until(lambda: len(probe.took) > 60, 60, "the latency is measured again")
        assert_unchanged(usual, probe.usual())
    os.close(read)


def _copy_until(descriptor: int, server: Server, text: str) -> None:
    """Read the server's output into its log until `text` comes."""
    with server.log_file.open("ab") as log:
        while text.encode() not in (server.log_file.read_bytes()):
            assert select.select([descriptor], [], [], 60)[0], "the server prints nothing"
            log.write(os.read(descriptor, 65_536))
            log.flush()


def test_what_a_model_prints_is_in_the_log_with_its_name(new_server: Callable[..., Server]) -> None:
    server = new_server()
    model = Commands(server.repository)
    with server:
        assert Calls(server, model).send(PRINT, 3).result(30)[0] == 3
        until(lambda: len(list(log_lines(server, r"^\[commands_0_0\] x{1023}$"))) == 3, 10, "three lines are logged")


def test_no_thread_of_ours_interrupts_another(shared: Server) -> None:
    for pid in (shared.process.pid, *[child.pid for child in shared.children()]):
        for task in Path(f"/proc/{pid}/task").iterdir():
            assert os.sched_getscheduler(int(task.name)) == os.SCHED_BATCH
