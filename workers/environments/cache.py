"""The cache of environments: each is made once, whoever asks, counts only when complete, and stays while it is used.

`KEY/` is the environment, `KEY/tidepool.json` says that it is complete, `KEY.lock` is held alone by whoever makes or
removes it and shared by the workers that run in it, to their end.
"""

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from workers.environments import EnvironmentFailed, say

_MARK = "tidepool.json"


class Entry(NamedTuple):
    """A complete environment. `used` is when a worker entered it last, in seconds since the epoch."""

    key: str
    source: str
    used: float
    byte_size: int


def default_root() -> Path:
    """`tidepool/environments` in the user's cache directory. Raises EnvironmentFailed."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "tidepool" / "environments"
    except RuntimeError:
        raise EnvironmentFailed("there is no place for environments: set XDG_CACHE_HOME") from None


class Cache:
    """The environments below one directory."""

    def __init__(self, root: Path) -> None:
        """The directory need not exist yet."""
        self._root = root

    def obtain(self, key: str, source: str, make: Callable[[Path], None]) -> Path:
        """The environment `key`, made if it is not there; it stays until this process (or what it becomes) ends.

        `make` fills the directory that it gets, at its final place, and raises what it likes. Raises OSError.
        """
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory = self._root / key
        lock = self._lock(key)
        os.set_inheritable(lock, True)  # whoever builds has it, and what this process becomes
        try:
            while True:
                _wait_for(lock, fcntl.LOCK_SH, source)
                if _is_complete(directory):
                    break
                _wait_for(lock, fcntl.LOCK_EX, source)
                if not _is_complete(directory):
                    shutil.rmtree(directory, ignore_errors=True)  # what a killed process has begun
                    _make(directory, source, make)
        except BaseException:
            os.close(lock)
            raise
        os.utime(directory / _MARK)
        return directory

    def entries(self) -> Iterator[Entry]:
        """All complete environments."""
        for mark in sorted(self._root.glob(f"*/{_MARK}")):
            source = json.loads(mark.read_text())["source"]
            yield Entry(mark.parent.name, source, mark.stat().st_mtime, _byte_size(mark.parent))

    def remove(self, key: str) -> bool:
        """Remove an environment; False when a worker runs in it."""
        lock = self._lock(key)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            (self._root / key / _MARK).unlink(missing_ok=True)
            shutil.rmtree(self._root / key)
        except BlockingIOError:
            return False
        finally:
            os.close(lock)
        return True

    def _lock(self, key: str) -> int:
        return os.open(self._root / f"{key}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _make(directory: Path, source: str, make: Callable[[Path], None]) -> None:
    try:
        make(directory)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    draft = directory / f".{_MARK}"
    draft.write_text(json.dumps({"source": source, "made": time.time()}))
    draft.replace(directory / _MARK)


def _wait_for(lock: int, kind: int, source: str) -> None:
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        say(f"waiting for the environment of {source}, which another process is building")
        fcntl.flock(lock, kind)


def _is_complete(directory: Path) -> bool:
    return (directory / _MARK).is_file()


def _byte_size(directory: Path) -> int:
    files = (os.path.join(root, name) for root, _, names in os.walk(directory) for name in names)
    return sum(os.lstat(file).st_size for file in files)
