"""Interpreters: which one has a version, and what an interpreter says of itself."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from workers.environments import EnvironmentFailed

NEEDED = ("zmq", "msgspec", "numpy")
"""What `broker.transport`, `broker.messages`, `shm` and `workers` import beside the standard library."""
OLDEST = (3, 11)

_PROBE = f"""
import importlib.util, json, sys
missing = [name for name in {NEEDED!r} if importlib.util.find_spec(name) is None]
has_pip = importlib.util.find_spec("pip") is not None
print(json.dumps([sys.version_info[:3], sys.implementation.cache_tag, missing, has_pip]))
"""
_PROBE_SECONDS = 60.0


class Interpreter(NamedTuple):
    """A Python. `missing` are the packages of NEEDED that it does not have."""

    path: str
    version: tuple[int, ...]
    tag: str
    missing: tuple[str, ...]
    has_pip: bool

    @property
    def takes_our_extensions(self) -> bool:
        """Whether compiled packages of the server's environment can be imported there."""
        return self.tag == sys.implementation.cache_tag

    def __str__(self) -> str:
        """For people."""
        return f"Python {'.'.join(map(str, self.version))}"


def probe(path: str) -> Interpreter:
    """Ask an interpreter. Raises OSError, ValueError, subprocess.SubprocessError."""
    command = [path, "-I", "-c", _PROBE]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PROBE_SECONDS, check=True)
    version, tag, missing, has_pip = json.loads(done.stdout)
    return Interpreter(path, tuple(version), tag, tuple(missing), has_pip)


def check(interpreter: Interpreter) -> None:
    """Can a worker run there? Raises EnvironmentFailed."""
    if interpreter.version < OLDEST:
        raise EnvironmentFailed(f"{interpreter} of {interpreter.path} is too old: 3.11 is the oldest that is supported")
    if interpreter.missing and not interpreter.takes_our_extensions:
        raise EnvironmentFailed(
            f"{interpreter} of {interpreter.path} is not the server's version of Python, so its environment must have "
            f"the packages that a worker needs; it lacks {', '.join(interpreter.missing)}"
        )


def find(version: str) -> Interpreter:
    """An interpreter to build with that has this version (`""`: the server's own). Raises EnvironmentFailed."""
    found = list(_matching(version))
    if not found:
        raise EnvironmentFailed(f"there is no Python {version} on this machine: python{version} is not on the PATH")
    return next((interpreter for interpreter in found if interpreter.has_pip), found[0])


def _matching(version: str) -> Iterator[Interpreter]:
    """Those with this version; those behind the first that has pip are not looked at."""
    wanted = tuple(map(int, version.split("."))) if version else sys.version_info[:3]
    minor = ".".join(map(str, wanted[:2]))
    for path in (sys.executable, os.path.join(sys.base_prefix, "bin", f"python{minor}"), *_candidates(minor)):
        try:
            found = probe(path)
        except (OSError, ValueError, subprocess.SubprocessError):
            continue  # pyenv's shims are there for versions that are not active
        if found.version[: len(wanted)] == wanted:
            yield found
            if found.has_pip:
                return


def _candidates(minor: str) -> Iterator[str]:
    for directory in os.get_exec_path():
        path = shutil.which(f"python{minor}", path=directory)
        if path is not None:
            yield path
    pyenv = Path(os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv"))
    yield from (str(path) for path in sorted(pyenv.glob(f"versions/{minor}*/bin/python"), reverse=True))
