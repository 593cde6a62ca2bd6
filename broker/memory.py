"""How much memory there is for us: of the machine, or what is left of it to our control group."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

LOAD_SHARE = 0.8
"""Of the memory that is available at the start, for models while they load."""
_GROUPS = (  # a limit and what is used of it, in version 2 and 1 of control groups
    ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory.current"),
    ("sys/fs/cgroup/memory/memory.limit_in_bytes", "sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def load_memory(root: Path = Path("/")) -> int:
    """Bytes that models may take together while they load; 0 when nothing is known."""
    available = min(_available(root), default=None)
    return 0 if available is None else max(1, int(LOAD_SHARE * available))


def _available(root: Path) -> Iterator[int]:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in (root / "proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                yield int(line.split()[1]) * 1024
    for limit, used in _GROUPS:
        with contextlib.suppress(OSError, ValueError):  # none, or "max"
            yield int((root / limit).read_text()) - int((root / used).read_text())
