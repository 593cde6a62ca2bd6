"""A build that is cut short: nothing of it goes on, and nothing of it counts."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.support.waiting import until

SECONDS = 20.0
BUILD = """
import sys
from pathlib import Path
from workers.environments.cache import Cache
from workers.environments.enter import Environment, prepare
prepare(Environment("packages", sys.argv[1], "", ""), Cache(Path(sys.argv[2])))
"""


def test_everything_that_builds_dies_with_the_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # an index that never answers
        port = silent.getsockname()[1]
        index = f"http://127.0.0.1:{port}/simple"
        requirements = tmp_path / "requirements.txt"
        requirements.write_text(f"--index-url {index}\n--trusted-host 127.0.0.1\ntidepool_fruit\n")
        monkeypatch.setenv("UV_INDEX_URL", index)
        cache = tmp_path / "cache"
        worker = subprocess.Popen([sys.executable, "-c", BUILD, str(requirements), str(cache)])
        silent.settimeout(SECONDS)
        connection, _ = silent.accept()
        builders = psutil.Process(worker.pid).children(recursive=True)
        assert len(builders) >= 2
        worker.send_signal(signal.SIGKILL)
        worker.wait(SECONDS)
        until(lambda: not any(_is_alive(one) for one in builders), SECONDS, "nobody builds any more")
        connection.close()
    (lock,) = cache.glob("*.lock")
    descriptor = os.open(lock, os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(descriptor)
    assert not list(cache.glob("*/tidepool.json"))


def _is_alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
