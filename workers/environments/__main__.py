"""`python -m broker environments [--remove DAYS]`: list the cached environments, or remove those unused for so long."""

import argparse
import sys
import time
from collections.abc import Sequence

from workers.environments import EnvironmentFailed, say
from workers.environments.cache import Cache, Entry, default_root

_DAY = 86400.0


def main(arguments: Sequence[str]) -> int:
    """List or remove; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m broker environments", description="The cached environments of Python models."
    )
    parser.add_argument("--remove", type=float, metavar="DAYS", help="remove those that no worker has entered for DAYS")
    days: float | None = parser.parse_args(arguments).remove
    try:
        root = default_root()
    except EnvironmentFailed as error:
        parser.error(str(error))
    cache = Cache(root)
    now = time.time()
    say(f"in {root}:")
    for entry in list(cache.entries()):
        is_stale = days is not None and now - entry.used >= days * _DAY
        state = ("removed: " if cache.remove(entry.key) else "in use: ") if is_stale else ""
        say(f"{state}{describe(entry, now)}")
    return 0


def describe(entry: Entry, now: float) -> str:
    """A line for people."""
    size = f"{entry.byte_size / (1 << 20):.1f} MiB"
    return f"{entry.key}  {size}, entered {(now - entry.used) / _DAY:.1f} days ago, made from {entry.source}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
