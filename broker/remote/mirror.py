"""One remote repository's copy here: `models/NAME` are links to complete snapshots, which change in one step.

`snapshots/NAME@ID` holds the files of one state of a model. A snapshot gets its name when everything is in it; what
reads `models/NAME` sees the old files or the new, and a download that fails leaves the old. `state.json` says that the
repository was listed once: from then on a server can start without it.
"""

import contextlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

from broker.remote.errors import RemoteError, reason
from broker.remote.plan import UNFETCHED, Entry, Plan, Tree, plan, read
from broker.remote.sources import Source, connect
from broker.remote.store import Store, locked
from broker.remote.unpack import unpack
from configs import layout
from configs.remote import Remote, models_directory

PARALLEL = 8
"""Downloads at a time, of one repository."""
PROGRESS_SECONDS = 5.0
_STATE = "state.json"

Say = Callable[[str, str], None]
"""Takes a level (of `IWE`) and a line for the log."""


class Synced(NamedTuple):
    """What has come of a synchronisation: models that changed here (or went), and those that could not be had."""

    changed: frozenset[str] = frozenset()
    failures: Mapping[str, str] = {}


class Mirror:
    """Brings a repository's copy up to date. One thread at a time does it, and one server."""

    def __init__(self, remote: Remote, cache: Path, say: Say, connect: Callable[[Remote], Source] = connect) -> None:
        """Makes the directories. Raises OSError."""
        self.remote = remote
        self.models = models_directory(cache, remote)
        self._home = self.models.parent
        self._say = say
        self._connect = connect
        self._connected: Source | None = None
        self._store = Store(cache)
        self._lock = threading.Lock()
        for directory in (self.models, self._home / "snapshots" / UNFETCHED):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    @property
    def last_listed(self) -> float | None:
        """When the repository was listed last, in seconds since the epoch; None: never."""
        try:
            return float(json.loads((self._home / _STATE).read_text())["listed"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def holds(self, model: str) -> bool:
        """Whether some state of the model is here."""
        return self._published().get(model, UNFETCHED) != UNFETCHED

    def __str__(self) -> str:
        """What is here, for people."""
        held = sum(snapshot != UNFETCHED for snapshot in self._published().values())
        count = f"{held} model{'' if held == 1 else 's'}"
        return f"{count} mirrored; the cache {self._store.root} has {size(self._store.byte_size())}"

    def sync(self, wanted: Collection[str] | None, arrived: Callable[[str], None] = lambda model: None) -> Synced:
        """Make the copy what the repository is, for the models that are `wanted` (None: all).

        `arrived` hears of every model that is complete, while others still download. Raises RemoteError when the
        repository cannot be listed; OSError.
        """
        with self._lock:
            source, entries = self._list()
            if self.remote.scheme == "http":
                synced = self._sync_archive(source, entries[0], arrived)
            else:
                synced = self._sync_tree(source, entries, wanted, arrived)
            self._write_state()
            if synced.changed:
                self._store.sweep(time.time())
            return synced

    def _list(self) -> tuple[Source, list[Entry]]:
        """Over the connection that there is; a new one, with the credentials as they are then, after a failure."""
        source, self._connected = self._connected or self._connect(self.remote), None
        entries = source.listing()
        self._connected = source
        return source, entries

    # ------------------------------------------------------------------------------------------- trees

    def _sync_tree(
        self, source: Source, entries: list[Entry], wanted: Collection[str] | None, arrived: Callable[[str], None]
    ) -> Synced:
        listing = read(entries)
        planned = plan(listing, self._published(), wanted, self._store.has)
        with locked(self._home / "lock"):
            for name in planned.postpone:
                self._point(name, UNFETCHED)
        for name in planned.remove:
            self._remove(name)
        changed = {*planned.postpone, *planned.remove}
        failures = {name: f"{self.remote}: {text}" for name, text in listing.refused.items()}
        for name, error in self._fetch(source, planned):
            text = error or self._put_together(name, planned.publish[name])
            if text:
                failures[name] = f"{self.remote}: {text}"
            else:
                changed.add(name)
                arrived(name)
        return Synced(frozenset(changed), failures)

    def _fetch(self, source: Source, planned: Plan) -> Iterator[tuple[str, str]]:
        """Every model to publish, once its objects are there, or with the reason why one is not."""
        missing = {name: {e.key for e in tree.files.values()} for name, tree in planned.publish.items()}
        pending = {entry.key for entry in planned.fetch}
        progress = _Progress(self.remote, planned.fetch, self._say)
        for name in [name for name, keys in missing.items() if not keys & pending]:
            del missing[name]
            yield name, ""
        with ThreadPoolExecutor(PARALLEL, thread_name_prefix="download") as pool:
            jobs: dict[Future[None], Entry] = {
                pool.submit(self._store.fetch, entry, source, progress.came): entry for entry in planned.fetch
            }
            for job in as_completed(jobs):
                entry = jobs[job]
                pending.discard(entry.key)
                error = _failure(job)
                progress.done(bool(error))
                for name in [n for n, keys in missing.items() if entry.key in keys and (error or not keys & pending)]:
                    del missing[name]
                    yield name, error
        if planned.fetch:
            progress.end()

    def _put_together(self, name: str, tree: Tree) -> str:
        """Make a model's snapshot and point to it; what went wrong, or ""."""
        try:
            with self._new_snapshot(name, tree.snapshot) as draft:
                for directory in sorted(tree.directories):
                    (draft / directory).mkdir(parents=True, exist_ok=True)
                for path, entry in tree.files.items():
                    self._store.link(entry, draft / path)
        except OSError as error:
            return reason(error)
        return ""

    # ------------------------------------------------------------------------------------------- archives

    def _sync_archive(self, source: Source, entry: Entry, arrived: Callable[[str], None]) -> Synced:
        published = self._published()
        if published and set(published.values()) == {entry.key[:32]}:
            return Synced()
        if not self._store.has(entry):
            progress = _Progress(self.remote, (entry,), self._say)
            self._store.fetch(entry, source, progress.came)
            progress.done(False)
            progress.end()
        unpacked = self._home / "unpacked"
        shutil.rmtree(unpacked, ignore_errors=True)
        try:
            unpack(self._store.path(entry), entry.path, unpacked)
            found = layout.list_models([unpacked])
            for name, directory in found.directories.items():
                with self._new_snapshot(name, entry.key[:32]) as draft:
                    draft.rmdir()
                    directory.rename(draft)
                arrived(name)
        finally:
            shutil.rmtree(unpacked, ignore_errors=True)
        gone = [name for name in published if name not in found.directories]
        for name in gone:
            self._remove(name)
        return Synced(frozenset([*found.directories, *gone]), found.errors)

    # ------------------------------------------------------------------------------------------- on disk

    def _published(self) -> dict[str, str]:
        """The snapshot of each model."""
        found = {}
        for link in self.models.iterdir():
            with contextlib.suppress(OSError):
                if link.is_dir():
                    target = os.path.basename(os.readlink(link))
                    found[link.name] = target.rpartition("@")[2]
        return found

    @contextlib.contextmanager
    def _new_snapshot(self, name: str, snapshot: str) -> Iterator[Path]:
        """A directory to fill, which becomes the model's snapshot if nothing goes wrong. Raises OSError."""
        place = self._home / "snapshots" / f"{name}@{snapshot}"
        with locked(self._home / "lock"):
            draft = self._home / "draft"
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(mode=0o700)
            yield draft
            if place.exists():
                shutil.rmtree(draft)
            else:
                draft.rename(place)
            self._point(name, place.name)
            for old in (self._home / "snapshots").iterdir():
                if old != place and old.name.rpartition("@")[0] == name:
                    shutil.rmtree(old, ignore_errors=True)

    def _point(self, name: str, snapshot: str) -> None:
        draft = self._home / "link"
        draft.unlink(missing_ok=True)
        draft.symlink_to(Path("..") / "snapshots" / snapshot)
        draft.replace(self.models / name)

    def _remove(self, name: str) -> None:
        with locked(self._home / "lock"):
            (self.models / name).unlink(missing_ok=True)
            for old in (self._home / "snapshots").iterdir():
                if old.name.rpartition("@")[0] == name:
                    shutil.rmtree(old, ignore_errors=True)

    def _write_state(self) -> None:
        with locked(self._home / "lock"):
            draft = self._home / f"draft.{_STATE}"
            draft.write_text(json.dumps({"url": str(self.remote), "listed": time.time()}))
            draft.replace(self._home / _STATE)


class _Progress:
    """Tells people how far a download is, every few seconds and at its end."""

    def __init__(self, remote: Remote, entries: Collection[Entry], say: Say) -> None:
        self._remote = remote
        self._say = say
        self._files, self._bytes = len(entries), sum(entry.size for entry in entries)
        self._done_files = self._done_bytes = self._failed = 0
        self._began = self._told = time.monotonic()
        self._lock = threading.Lock()

    def came(self, count: int) -> None:
        """So many bytes are here. Called by all threads."""
        with self._lock:
            self._done_bytes += count
            now = time.monotonic()
            if now < self._told + PROGRESS_SECONDS:
                return
            self._told = now
        self._say("I", f"{self._remote}: {self._state()}")

    def done(self, is_failure: bool) -> None:
        """A file has come, or failed."""
        self._done_files += not is_failure
        self._failed += is_failure

    def end(self) -> None:
        """Nothing more will come."""
        seconds = time.monotonic() - self._began
        failed = f", {self._failed} failed" if self._failed else ""
        self._say("I", f"{self._remote}: {self._state()}{failed} in {seconds:.1f} s")

    def _state(self) -> str:
        files = f"{self._done_files} of {self._files} file{'' if self._files == 1 else 's'}"
        return f"{files}, {size(self._done_bytes)} of {size(self._bytes)}"


def size(count: float) -> str:
    """A number of bytes for people."""
    for unit in ("bytes", "KB", "MB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GB"


def _failure(job: Future[None]) -> str:
    error = job.exception()
    if error is None:
        return ""
    if isinstance(error, RemoteError):
        return str(error)
    if isinstance(error, OSError):
        return f"cannot be kept: {reason(error)}"
    raise error
