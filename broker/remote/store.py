"""The objects of the cache: content by what it is, each downloaded once, whoever asks, and verified before it counts.

`objects/KEY` are complete files, `partial/KEY` what has come of others, which the next attempt goes on with, and
`partial/KEY.lock` is held by whoever downloads. Snapshots are hard links to objects: one that nothing links to is
removed after a while.
"""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from broker.remote.errors import RemoteError
from broker.remote.plan import Entry, hasher
from broker.remote.sources import Source

UNUSED_SECONDS = 24 * 3600.0
"""How long an object stays that no snapshot has: a model may be rolled back."""
_BLOCK = 1 << 20


class Store:
    """Objects below one directory, which several servers may share."""

    def __init__(self, root: Path) -> None:
        """Makes the directory, `root`, for its user alone. Raises OSError."""
        self.root = root
        self._digests: dict[str, str] = {}  # of objects that did not have the listed one
        for directory in (root, root / "objects", root / "partial", root / "mirrors"):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def has(self, entry: Entry) -> bool:
        """Whether the object is there, and complete."""
        try:
            return self._object(entry).stat().st_size == entry.size
        except OSError:
            return False

    def path(self, entry: Entry) -> Path:
        """Where the object lies."""
        return self._object(entry)

    def fetch(self, entry: Entry, source: Source, came: Callable[[int], None]) -> None:
        """Download the object unless it is there, or somebody else does so now. `came` hears of bytes.

        Raises RemoteError, OSError; what has come so far stays.
        """
        partial = self.root / "partial" / entry.key
        with locked(partial.with_suffix(".lock")):
            if self.has(entry):
                came(entry.size)
                return
            self._download(entry, partial, source, came)
            self._verify(entry, partial, source)
            partial.chmod(0o444)
            os.utime(partial)
            partial.replace(self._object(entry))
            partial.with_suffix(".lock").unlink(missing_ok=True)

    def _download(self, entry: Entry, partial: Path, source: Source, came: Callable[[int], None]) -> None:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with open(descriptor, "wb") as file:
            have = os.fstat(descriptor).st_size
            if have > entry.size:
                have = 0
            blocks: Iterator[bytes] = iter(())
            if have < entry.size:
                have, blocks = source.read(entry, have)
            os.ftruncate(descriptor, have)
            file.seek(have)
            came(have)
            for block in blocks:
                have += len(block)
                if have > entry.size:
                    break
                file.write(block)
                came(len(block))
            file.flush()
            os.fsync(descriptor)
        if have != entry.size:
            if have > entry.size:
                partial.unlink()
            raise RemoteError(f"'{entry.path}' has {have} bytes, {entry.size} were listed")

    def _verify(self, entry: Entry, partial: Path, source: Source) -> None:
        digest, wanted = hasher(entry)
        if digest is not None:
            with partial.open("rb") as file:
                while block := file.read(_BLOCK):
                    digest.update(block)
            is_right = digest.hexdigest() == wanted or not self._is_digest(entry, digest.hexdigest(), source)
        else:
            is_right = source.is_as_listed(entry)
        if not is_right:
            partial.unlink()
            raise RemoteError(f"'{entry.path}' is not what was listed: it was changed, or damaged on its way")

    def _is_digest(self, entry: Entry, found: str, source: Source) -> bool:
        """Whether the tag is a digest at all: not if a second download has the same one, and nothing has changed."""
        if not source.is_digest(entry):
            return False
        before, self._digests[entry.key] = self._digests.get(entry.key), found
        return not (entry.tag.startswith("md5:") and before == found and source.is_as_listed(entry))

    def link(self, entry: Entry, place: Path) -> None:
        """Put the object's content at a place that is free. Raises OSError."""
        try:
            os.link(self._object(entry), place)
        except OSError:  # too many links, or a file system without
            shutil.copyfile(self._object(entry), place)

    def sweep(self, now: float) -> None:
        """Remove what nobody has used for a while; `now` in seconds since the epoch."""
        for path in [*(self.root / "objects").iterdir(), *(self.root / "partial").iterdir()]:
            with contextlib.suppress(OSError):
                status = path.stat()
                if status.st_nlink == 1 and now - max(status.st_mtime, status.st_ctime) > UNUSED_SECONDS:
                    path.unlink()

    def byte_size(self) -> int:
        """Bytes in objects, complete or not."""
        total = 0
        for directory in ("objects", "partial"):
            for entry in os.scandir(self.root / directory):
                with contextlib.suppress(OSError):
                    total += entry.stat().st_size
        return total

    def _object(self, entry: Entry) -> Path:
        return self.root / "objects" / entry.key


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a file's lock, which other servers may have; it need not exist."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _is_at(path, descriptor):
                yield
                return
        finally:
            os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether the file that we have locked is still the one that others find."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
