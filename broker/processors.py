"""Which processors this server may use: its affinity, the CPU quota of its control groups, the cores of NUMA nodes."""

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from broker.cpus import Processors
from configs.host_policy import cores

_CGROUPS = Path("/sys/fs/cgroup")
_NODES = Path("/sys/devices/system/node")


def find() -> Processors:
    """As it is now."""
    quotas = list(_quotas(Path("/proc/self/cgroup"), _CGROUPS))
    return Processors(frozenset(os.sched_getaffinity(0)), min(quotas, default=None), nodes(_NODES))


def nodes(directory: Path) -> dict[int, frozenset[int]]:
    """The cores of each NUMA node; nodes without a core are left out."""
    found = {}
    for file in directory.glob("node*/cpulist"):
        text = _read(file)
        if text and re.fullmatch(r"node[0-9]+", file.parent.name):
            found[int(file.parent.name.removeprefix("node"))] = cores(text)
    return found


def _quotas(membership: Path, root: Path) -> Iterator[float]:
    """The limits, in processors, of all control groups that we are in."""
    for line in _read(membership).splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield from _limits(root, path)
        elif "cpu" in controllers.split(","):
            yield from _limits(root / controllers, path)


def _limits(root: Path, path: str) -> Iterator[float]:
    """Those of a group and of the groups that it is in. What a container does not see is above its root."""
    group = PurePosixPath(path).relative_to("/")
    for directory in (group, *group.parents):
        words = _read(root / directory / "cpu.max").split()
        if not words:
            words = [_read(root / directory / f"cpu.cfs_{name}_us") for name in ("quota", "period")]
        if all(word.isdecimal() for word in words) and int(words[1]):
            yield int(words[0]) / int(words[1])


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
