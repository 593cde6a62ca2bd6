"""How much memory loading each model takes, as far as we know: what earlier loads took, else a guess from its files.

Known from one server to the next by a small file in the user's cache directory, `tidepool/loads.json`.
"""

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from configs.description import ModelDescription

BASE = 32 << 20
"""What a worker takes whose model is nothing."""
FACTOR = 2
"""A model in memory, while it is read, to its files."""
MOST_MODELS = 1000
"""Remembered; those that were measured last."""
MOST_FILES = 10_000
"""Looked at for one guess."""


def default_path() -> Path | None:
    """Where it is remembered; None where there is no place."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    with contextlib.suppress(RuntimeError):
        return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "tidepool" / "loads.json"
    return None


class LoadMemory:
    """By the model's directory, as long as the configuration is the same."""

    def __init__(self, path: Path | None) -> None:
        """Nothing is known where the file cannot be read."""
        self._path = path
        self._known = _read(path)
        self._is_dirty = False

    def expected(self, description: ModelDescription) -> int:
        """Bytes that an instance takes at most while it loads."""
        fingerprint, byte_size = self._known.get(description.path, ("", 0))
        return byte_size if fingerprint == description.fingerprint else guess(description)

    def measured(self, path: str, fingerprint: str, byte_size: int) -> None:
        """An instance has taken so much; the most counts."""
        known = self._known.pop(path, ("", 0))
        most = max(byte_size, known[1] if known[0] == fingerprint else 0)
        self._known[path] = (fingerprint, most)
        self._is_dirty = self._is_dirty or known != (fingerprint, most)

    def save(self) -> None:
        """Write the file if there is news; without it the next server guesses."""
        if not self._is_dirty or self._path is None:
            return
        self._is_dirty = False
        kept = dict(list(self._known.items())[-MOST_MODELS:])
        draft = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_text(json.dumps(kept))
            draft.replace(self._path)


def guess(description: ModelDescription, walk: Callable[..., Any] = os.walk) -> int:
    """From the files of the largest version."""
    return BASE + FACTOR * max(
        (_bytes_of(Path(description.path) / str(n), walk) for n in description.versions), default=0
    )


def _bytes_of(directory: Path, walk: Callable[..., Any]) -> int:
    total = count = 0
    for place, _, names in walk(directory):
        for name in names:
            count += 1
            if count > MOST_FILES:
                return total
            with contextlib.suppress(OSError):
                total += os.stat(os.path.join(place, name)).st_size
    return total


def _read(path: Path | None) -> dict[str, tuple[str, int]]:
    if path is None:
        return {}
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: (entry[0], entry[1]) for name, entry in found.items() if _is_entry(entry)}


def _is_entry(entry: object) -> bool:
    match entry:
        case [str(), int(size)]:
            return size >= 0
        case _:
            return False
