"""An S3 for tests (moto's server, a process of its own), and a way to it that can be cut."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3

from tests.support.waiting import until

START_SECONDS = 60.0
SHORT = 1 << 18
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
"""The environment of a client."""


class S3:
    """One bucket, `bucket`. A context manager."""

    def __init__(self, log: Path) -> None:
        """`log` is what the server prints to. Starts it."""
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-p", str(self.port)]
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command, stdout=output, stderr=output, env={**os.environ, "INITIAL_NO_AUTH_ACTION_COUNT": "1000000"}
            )

    def __enter__(self) -> "S3":
        until(self._answers, START_SECONDS, "S3 answers")
        self._client: Any = boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            region_name="us-east-1",
        )
        self._client.create_bucket(Bucket="bucket")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/moto-api/", timeout=5):
                return True
        except OSError:
            return False

    def put(self, key: str, content: bytes | str) -> None:
        """Write an object."""
        self._client.put_object(
            Bucket="bucket", Key=key, Body=content.encode() if isinstance(content, str) else content
        )

    def delete(self, key: str) -> None:
        """Remove an object."""
        self._client.delete_object(Bucket="bucket", Key=key)

    def let_in(self, everybody: bool) -> None:
        """Whether credentials count from now on: nobody has any that are right."""
        count = "1000000" if everybody else "0"
        url, headers = f"{self.url}/moto-api/reset-auth", {"Content-Type": "text/plain"}
        with urllib.request.urlopen(urllib.request.Request(url, count.encode(), headers), timeout=10):
            pass


class Way:
    """A port that leads to another one. It can be closed, and break: from some point on only short answers pass."""

    def __init__(self, port: int) -> None:
        """Leads to `port` of this machine."""
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.breaks_after: int | None = None  # bytes
        self.carried = 0  # bytes of answers
        self._is_closed = False
        self._passes = threading.Event()
        self._passes.set()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Nobody listens any more."""
        self._is_closed = True
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Requests wait meanwhile: nobody sees half of what is written."""
        self._passes.clear()
        try:
            yield
        finally:
            self._passes.set()

    def _accept(self) -> None:
        while not self._is_closed:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._to))
            threading.Thread(target=self._pipe, args=(near, far, False), daemon=True).start()
            threading.Thread(target=self._pipe, args=(far, near, True), daemon=True).start()

    def _pipe(self, source: socket.socket, sink: socket.socket, is_answer: bool) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if is_answer:
                    passed += len(data)
                    self.carried += len(data)
                    if self.breaks_after is not None and self.carried > self.breaks_after and passed > SHORT:
                        break
                if not is_answer:
                    self._passes.wait(START_SECONDS)
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
