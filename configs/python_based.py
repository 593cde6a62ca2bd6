"""Python-based backends: below `backend_directory` one directory for each, whose `model.py` serves all its models."""

import os
import re
from pathlib import Path

FILE = "model.py"
_NAME = re.compile(r"\w[\w.-]*", re.ASCII)  # it becomes a path


def find(root: Path, backend: str) -> Path | None:
    """The backend's directory, None when there is no such backend."""
    if not _NAME.fullmatch(backend):
        return None
    return root / backend if (root / backend / FILE).is_file() else None


def names(root: Path) -> tuple[str, ...]:
    """All backends that there are, sorted."""
    try:
        entries = sorted(os.listdir(root))
    except OSError:
        return ()
    return tuple(name for name in entries if find(root, name) is not None)
