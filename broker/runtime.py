"""A server's private directory and the lock that says it is alive; sweeping up after servers that are not."""

import contextlib
import fcntl
import os
import re
import resource
import secrets
import shutil
import tempfile
import time
from pathlib import Path

from shm import region

_ID = re.compile(r"[0-9a-f]{8}")
"""What a server's id looks like: others may have put other names beside ours."""
_YOUNG_SECONDS = 10.0
"""A directory without a lock may belong to a server that is just starting."""


def directory_of(server: str) -> Path:
    """Where the server with this id keeps its socket: a directory that only its user can enter."""
    return _base() / f"{_prefix()}{server}"


def new_id() -> str:
    """An id for a new server."""
    return secrets.token_hex(4)


def claim(server: str) -> tuple[Path, int]:
    """Make the directory and lock it for as long as the returned descriptor is open. Raises OSError."""
    path = directory_of(server)
    path.mkdir(mode=0o700)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return path, descriptor


def clean(server: str) -> None:
    """Remove everything of a server whose processes have all ended."""
    region.sweep(server)
    shutil.rmtree(directory_of(server), ignore_errors=True)


def sweep_dead_servers() -> None:
    """Clean up after every server of this user that has died without doing so."""
    for path in _base().glob(f"{_prefix()}*"):
        server = path.name.removeprefix(_prefix())
        if not _ID.fullmatch(server):
            continue
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            status = os.fstat(descriptor)
            if status.st_uid == os.getuid() and time.time() - status.st_mtime > _YOUNG_SECONDS:
                clean(server)
        except BlockingIOError:
            continue
        finally:
            os.close(descriptor)


def raise_file_limit() -> None:
    """Allow as many open files as we may: each instance takes several here and in every frontend."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def prefer_throughput() -> None:
    """Have the kernel schedule us and our children as SCHED_BATCH: who is woken waits for the turn of the other to end.

    A message that wakes its receiver would otherwise interrupt the sender; many small requests take a sixth more.
    """
    with contextlib.suppress(OSError):  # it is a hint; a sandbox may forbid it
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _prefix() -> str:
    return f"tidepool-{os.getuid()}-"


def _base() -> Path:
    return Path(tempfile.gettempdir())
