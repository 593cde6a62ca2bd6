"""Starts the servers to compare, each with its log in bench/results, and stops them again."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import triton

RESULTS = Path(__file__).parent / "results"
START_TIMEOUT = 60.0  # seconds
STOP_TIMEOUT = 40.0


@dataclass(frozen=True)
class Server:
    """A running server; `pid` is the root of its process tree."""

    name: str
    pid: int
    http: tuple[str, int]
    grpc: tuple[str, int]
    metrics: tuple[str, int]


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on at the moment."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in sockets:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in sockets]


@contextlib.contextmanager
def tidepool(repository: Path, *flags: str, patience: float = START_TIMEOUT) -> Iterator[Server]:
    """This project's server."""
    line = [sys.executable, "-m", "broker", f"--model-repository={repository}", *flags]
    with running("Tidepool", line, os.environ, patience) as server:
        yield server


@contextlib.contextmanager
def real_triton(repository: Path, patience: float = START_TIMEOUT) -> Iterator[Server]:
    """The real tritonserver."""
    line, environment = triton.command(f"--model-repository={repository}")
    with running("Triton", line, environment, patience) as server:
        yield server


@contextlib.contextmanager
def running(
    name: str, line: Sequence[str], environment: Mapping[str, str], patience: float = START_TIMEOUT
) -> Iterator[Server]:
    """Starts the command with three free ports as flags, yields when it is ready, stops it; log on failure."""
    http, grpc, metrics = free_ports(3)
    flags = [f"--http-port={http}", f"--grpc-port={grpc}", f"--metrics-port={metrics}"]
    RESULTS.mkdir(exist_ok=True)
    log = RESULTS / f"{name.lower()}-{http}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*line, *flags], env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        wait_until_ready(process, f"http://127.0.0.1:{http}/v2/health/ready", log, patience)
        yield Server(name, process.pid, *(("127.0.0.1", port) for port in (http, grpc, metrics)))
    finally:
        stop(process)


def wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path, patience: float = START_TIMEOUT) -> None:
    """SystemExit with the end of its log when it ends or takes too long."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    state = "did not become ready" if process.poll() is None else f"ended with {process.returncode}"
    raise SystemExit(f"{process.args!r} {state}; {log} ends with\n{log.read_text()[-3000:]}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, and SIGKILL when that is not enough."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
