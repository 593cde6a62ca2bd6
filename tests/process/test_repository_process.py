"""The repository process outlives a killed broker for a moment, to clean up, and not for longer."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from broker.runtime import new_id
from tests.support.waiting import until

SECONDS = 20.0
BROKER = """
import os, subprocess, sys
command = [sys.executable, "-P", "-m", "broker.repository", *sys.argv[1:4], str(os.getpid()), "-1", *sys.argv[4:]]
print(subprocess.Popen(command).pid, flush=True)
sys.stdin.read()
"""
"""A broker that only starts its repository process."""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A server.pbtxt that nobody can read to its end before somebody writes it."""
    path = tmp_path / "server.pbtxt"
    os.mkfifo(path)
    return path


@pytest.fixture
def broker(tmp_path: Path, config: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The broker, and its repository process."""
    place = (str(tmp_path / "socket"), "r1", new_id())
    command = [sys.executable, "-c", BROKER, *place, f"--config={config}", f"--model-repository={tmp_path}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        try:
            yield process, child
        finally:
            for pid in (process.pid, child):
                if psutil.pid_exists(pid):
                    os.kill(pid, signal.SIGKILL)


def writer(config: Path) -> int:
    """A descriptor to write the configuration to; -1 while nobody reads it."""
    try:
        return os.open(config, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return -1


def test_it_ends_with_a_broker_that_dies_while_it_starts(
    broker: tuple[subprocess.Popen[bytes], int], config: Path
) -> None:
    process, child = broker
    descriptor = until(lambda: max(0, writer(config)), SECONDS, "it has found its place and reads the configuration")
    process.kill()
    process.wait(SECONDS)
    assert psutil.pid_exists(child)
    os.close(descriptor)
    until(lambda: not psutil.pid_exists(child), SECONDS, "it has ended, too")
