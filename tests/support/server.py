"""A real server for tests: its own repository, free ports, a log, and proof that it leaves nothing behind."""

import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType

import psutil
from prometheus_client.parser import text_string_to_metric_families

from tests.support.waiting import until

START_SECONDS = 60.0
STOP_SECONDS = 45.0
CLEAN_SECONDS = 5.0
"""How long the remains of a killed server may last."""
SHM = Path("/dev/shm")

running: list["Server"] = []
"""Servers that have been started and not stopped yet: their logs belong to the report of a failed test."""


class Server:
    """`python -m broker` with the repository `<directory>/model_repository` and ports of its own.

    Write models first (`tests.support.models`), then `start`, or use it as a context manager, which stops it in the
    end, asserts a clean exit, and always asserts that no process, shared memory or directory of it is left.
    """

    def __init__(self, directory: Path, text: str = "", *flags: str, env: Mapping[str, str] | None = None) -> None:
        """`text` is server.pbtxt; `flags` come on the command line; `env` is added to the environment."""
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.repository = directory / "model_repository"
        self.repository.mkdir(exist_ok=True)
        self.config = directory / "server.pbtxt"
        self.config.write_text(text)
        self.flags = list(flags)
        self.launcher = [sys.executable, "-m", "broker"]
        self.takes_file = True  # else flags are all that it is told
        self.cwd = directory
        self.id = ""
        self._env = {**os.environ, **(env or {})}
        self.log_file = directory / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    # ------------------------------------------------------------------------------------------- life

    def start(self, wait: str = "ready", output: int | None = None) -> "Server":
        """Start and wait until the server is `ready`, `live`, or (`""`) only started.

        `output` is a descriptor to print to instead of the log.
        """
        local = [f"--{role}-address=127.0.0.1" for role in ("http", "grpc")]
        free = [f"--{role}-port=0" for role in ("http", "grpc", "metrics")]
        file = [f"--config={self.config}"] if self.takes_file else []
        command = [*self.launcher, *file, *local, *free, *self.flags]
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.cwd,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=output or log,
                stderr=output or log,
            )
        running.append(self)
        if wait:
            try:
                self.wait(wait)
            except AssertionError:
                self._give_up()
                raise
        return self

    def wait(self, state: str, seconds: float = START_SECONDS) -> None:
        """Wait until `/v2/health/<state>` says yes. Fails when the server exits instead."""

        def look() -> bool:
            assert self.process.poll() is None, f"the server has exited with {self.process.returncode}"
            return self.is_healthy(state)

        until(look, seconds, f"the server is {state}")
        until(self._listens, seconds, "gRPC is served")

    def _listens(self) -> bool:
        """Whether the gRPC port, if there is one, takes connections: its frontend starts in its own time."""
        port = self.ports().get("grpc")
        if port is None:
            return True
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
            return True
        return False

    def is_healthy(self, state: str) -> bool:
        """What `/v2/health/<state>` says now; False when nobody answers."""
        ports = self.ports()
        if "http" not in ports:
            return False
        connection = http.client.HTTPConnection("127.0.0.1", ports["http"], timeout=5)
        try:
            connection.request("GET", f"/v2/health/{state}")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def stop(self, number: int = signal.SIGTERM, seconds: float = STOP_SECONDS) -> int:
        """Send a signal, wait for the end, assert that nothing is left; the exit status (negative: a signal)."""
        self.remember_id()
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.wait_for_exit(seconds)

    def wait_for_exit(self, seconds: float = STOP_SECONDS) -> int:
        """Wait for the end and assert that nothing is left; the exit status."""

        def has_ended() -> bool:
            self.remember_id()
            return self.process.poll() is not None

        if self in running:  # a start that failed has taken it out
            running.remove(self)
        try:
            until(has_ended, seconds, "the server has exited")
            until(lambda: not self.remains(), CLEAN_SECONDS, "nothing of the server is left")
        except AssertionError:
            self.process.kill()
            self.process.wait(STOP_SECONDS)
            print(f"left: {self.remains()}\nlog of the server in {self.directory}:\n{self.log()}")
            raise
        return self.process.returncode

    def _give_up(self) -> None:
        """Something has failed already: show the log and end the server, whatever its state."""
        print(f"log of the server in {self.directory}:\n{self.log()}")
        with contextlib.suppress(AssertionError):  # the first failure is the one to report
            self.stop(signal.SIGKILL)

    def remains(self) -> list[str]:
        """What is left of the server: processes, shared memory, its directory."""
        if not self.id:
            return []
        left = [f"process {p.pid}: {' '.join(_command(p))}" for p in psutil.process_iter() if self.id in _command(p)]
        left += [str(path) for path in SHM.glob(f"tidepool-{self.id}-*")]
        return left + [str(path) for path in Path(tempfile.gettempdir()).glob(f"tidepool-*-{self.id}")]

    def __enter__(self) -> "Server":
        if self._process is None:
            self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self not in running:
            return
        if error is not None:
            self._give_up()
            return
        status = self.stop()
        if status != 0:
            print(f"log of the server in {self.directory}:\n{self.log()}")
        assert status == 0, "the server did not exit cleanly"

    # ------------------------------------------------------------------------------------------- what can be seen

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The broker."""
        assert self._process is not None, "the server was not started"
        return self._process

    def log(self, last: int = 20_000) -> str:
        """The last characters of what the server has printed."""
        return self.log_file.read_text(errors="replace")[-last:] if self.log_file.exists() else ""

    def ports(self) -> dict[str, int]:
        """Port by role, from the table of options; empty until it is printed."""
        with self.log_file.open(errors="replace") as log:
            head = log.read(20_000)
        roles = "http|grpc|metrics|sagemaker|vertex_ai"
        return {role: int(port) for role, port in re.findall(rf"^\| ({roles}) +\| \S+:(\d+) +\|", head, re.M)}

    def address(self, role: str) -> str:
        """`127.0.0.1:port` of `http`, `grpc`, `metrics`, `sagemaker` or `vertex_ai`."""
        return f"127.0.0.1:{self.ports()[role]}"

    def children(self, role: str = "") -> list[psutil.Process]:
        """The living children of a role (`workers`, `frontends.http`, `broker.repository` ...), oldest first."""
        with contextlib.suppress(psutil.NoSuchProcess):
            found = psutil.Process(self.process.pid).children()
            return [p for p in sorted(found, key=lambda p: p.pid) if _is_alive(p) and role in ("", _role(p))]
        return []

    def pids(self, role: str = "workers") -> list[int]:
        """The process ids of `children(role)`."""
        return [process.pid for process in self.children(role)]

    def remember_id(self) -> str:
        """The server's id, which names its shared memory and its directory: from a child's command line."""
        for child in self.children() if not self.id else ():
            if _role(child):
                self.id = _command(child)[6]
        return self.id

    def shm_regions(self) -> list[Path]:
        """The server's regions of shared memory."""
        return list(SHM.glob(f"tidepool-{self.remember_id()}-*"))

    def shm_bytes(self) -> int:
        """Bytes of memory that the server's shared memory takes (regions are sparse)."""
        total = 0
        for region in self.shm_regions():
            with contextlib.suppress(FileNotFoundError):
                total += region.stat().st_blocks * 512
        return total

    def metric(self, name: str, **labels: str) -> float | None:
        """The sum of a metric's samples that carry these labels, from the metrics page; None when there are none."""
        with urllib.request.urlopen(f"http://{self.address('metrics')}/metrics", timeout=10) as page:
            families = {family.name: family for family in text_string_to_metric_families(page.read().decode())}
        samples = families[name].samples if name in families else []
        values = [sample.value for sample in samples if labels.items() <= sample.labels.items()]
        return sum(values) if values else None

    def edit(self, old: str, new: str, path: Path | None = None) -> None:
        """Replace text in server.pbtxt, or in another file, as an editor does: a new file in place of the old."""
        path = path or self.config
        text = path.read_text()
        assert text.count(old) == 1, f"{old!r} must be there once in {text}"
        draft = path.with_suffix(".draft")
        draft.write_text(text.replace(old, new))
        draft.replace(path)


def run_to_exit(server: Server, seconds: float = START_SECONDS) -> tuple[int, str]:
    """Start a server that is to exit by itself; its exit status and everything that it printed."""
    server.start(wait="")
    return server.wait_for_exit(seconds), server.log()


def log_lines(server: Server, pattern: str) -> Iterator[str]:
    """The lines of the log that match."""
    return (line for line in server.log(10_000_000).splitlines() if re.search(pattern, line))


def _command(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.Error):
        return [*process.cmdline()]
    return []


def _role(process: psutil.Process) -> str:
    """The module that a child runs: `python -P -m MODULE SOCKET TOKEN SERVER ...`."""
    command = _command(process)
    return command[3] if command[1:3] == ["-P", "-m"] else ""


def _is_alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False
