"""CPU time of a server: all threads of all its processes, as the kernel's scheduler counts it."""

from collections.abc import Iterator
from pathlib import Path

Snapshot = dict[tuple[int, int], int]


def snapshot(pid: int) -> Snapshot:
    """Nanoseconds on a CPU so far by (process, thread), for the process and all its descendants."""
    times: Snapshot = {}
    for process in tree(pid):
        for task in Path(f"/proc/{process}/task").glob("*"):
            try:
                times[process, int(task.name)] = int((task / "schedstat").read_text().split()[0])
            except (FileNotFoundError, ProcessLookupError):
                continue  # ended meanwhile
    return times


def tree(pid: int) -> Iterator[int]:
    """The process and all its descendants."""
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            pids = [int(child) for child in children.read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue  # ended meanwhile
        for child in pids:
            yield from tree(child)


def seconds_between(before: Snapshot, after: Snapshot) -> float:
    """CPU seconds used by the threads of `after` since `before`; a thread that is new in it counts in full."""
    return sum(time - before.get(thread, 0) for thread, time in after.items()) / 1e9
