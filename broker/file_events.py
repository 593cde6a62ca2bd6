"""What the kernel says has happened below the model repositories, gathered by a thread of its own.

A hint to look sooner, no more: events may be missing, as on network file systems, so somebody has to look anyway.
"""

import os
import queue
import threading
from collections.abc import Sequence
from pathlib import Path

DEBOUNCE_MS = 200
"""How long a burst of events may last before it is told."""
STEP_MS = 100


class FileEvents:
    """Follows repositories from its creation on."""

    def __init__(self, repositories: Sequence[Path]) -> None:
        """Start to follow; where that cannot be done, `problem` comes to say why."""
        self._repositories = {os.path.abspath(path): path for path in repositories}
        self._touched: queue.SimpleQueue[Path] = queue.SimpleQueue()
        self._problems: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._follow, name="file events", daemon=True).start()

    def take(self) -> set[Path]:
        """The model directories in or below which something has happened since the last call."""
        found = set()
        while not self._touched.empty():
            found.add(self._touched.get())
        return found

    def problem(self) -> str:
        """Why there are no events any more; told once, else ""."""
        return self._problems.get() if not self._problems.empty() else ""

    def _follow(self) -> None:
        try:
            from watchfiles import watch  # noqa: PLC0415  # only mode poll pays for it

            paths = tuple(self._repositories)
            for changes in watch(*paths, watch_filter=None, debounce=DEBOUNCE_MS, step=STEP_MS, raise_interrupt=False):
                for _, path in changes:
                    self._touch(path)
        except Exception as error:  # of several kinds, down to Rust's: polling goes on without it
            self._problems.put(str(error) or type(error).__name__)

    def _touch(self, path: str) -> None:
        for absolute, repository in self._repositories.items():
            name = os.path.relpath(path, absolute).partition(os.sep)[0]
            if name not in (os.curdir, os.pardir):
                self._touched.put(repository / name)
