"""`python -P -m workers.environments.enter SOCKET TOKEN SERVER BROKER_PID DESCRIPTOR ENVIRONMENT`: a worker's first
steps when its model has an environment of its own. They end by becoming that environment's interpreter."""

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from broker.child import take_place
from workers.environments import EnvironmentFailed, interpreter, packages, say
from workers.environments.cache import Cache, default_root
from workers.environments.unpack import unpack

OWN = ("broker", "configs", "workers", "shm")


class Environment(NamedTuple):
    """`configs.description.Environment`, as it comes on the command line."""

    kind: str
    path: str
    stamp: str
    python: str


def main() -> None:
    """Prepare the environment and run the worker in it; where that fails the worker says why."""
    place = sys.argv[1:6]
    take_place(place)
    try:
        enter(Environment(**json.loads(sys.argv[6])), "workers.__main__", place)
    except (EnvironmentFailed, OSError) as error:
        from workers.__main__ import main as work  # noqa: PLC0415  # numpy and the fabric, for a refusal only

        work(refusal=str(error))


def enter(wanted: Environment, module: str, arguments: Sequence[str]) -> None:
    """Become the environment's interpreter and run a module's `main` there. Raises EnvironmentFailed, OSError."""
    directory = prepare(wanted, Cache(default_root()))
    python = str(directory / "bin" / "python")
    try:
        found = interpreter.probe(python)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise EnvironmentFailed(f"{python} does not run: {error}") from None
    interpreter.check(found)
    lent = locate(interpreter.NEEDED) if found.takes_our_extensions else {}
    bootstrap = os.path.join(os.path.dirname(__file__), "bootstrap.py")
    command = [python, "-P", bootstrap, json.dumps(locate(OWN)), json.dumps(lent), module, *arguments]
    sys.stdout.flush()
    os.execve(python, command, surroundings(directory, wanted.kind != "packages", os.environ))


def prepare(wanted: Environment, cache: Cache) -> Path:
    """The environment's directory, complete. Raises EnvironmentFailed, OSError."""
    source = Path(wanted.path)
    if wanted.kind == "packages":
        python = interpreter.find(wanted.python)
        key = f"{source.stem}-{packages.digest(source, python)[:24]}"
        return cache.obtain(key, wanted.path, lambda place: _build(source, python, place))
    directory = source
    if wanted.kind == "archive":
        name = hashlib.sha256(f"{wanted.path}\0{wanted.stamp}".encode()).hexdigest()
        directory = cache.obtain(f"archive-{name[:24]}", wanted.path, lambda place: _unpack(source, place))
    activate = directory / "bin" / "activate"
    if not activate.exists():
        raise EnvironmentFailed(
            f"Path {activate} does not exist. The Python environment should contain an 'activate' script."
        )
    return directory


def _build(source: Path, python: interpreter.Interpreter, place: Path) -> None:
    began = time.monotonic()
    say(f"building an environment with {python} for {source} in {place}")
    packages.build(source, python, place)
    say(f"the environment is built after {time.monotonic() - began:.1f} s")


def _unpack(source: Path, place: Path) -> None:
    say(f"unpacking {source} to {place}")
    unpack(source, place)


def locate(names: Iterable[str]) -> dict[str, str]:
    """In which directory each of these packages of the server's environment lies."""
    found = {}
    for name in names:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations:
            found[name] = os.path.dirname(next(iter(spec.submodule_search_locations)))
    return found


def surroundings(directory: Path, is_packed: bool, ours: Mapping[str, str]) -> dict[str, str]:
    """The environment variables that activating it would set."""
    theirs = {name: value for name, value in ours.items() if name != "PYTHONHOME"}
    theirs["VIRTUAL_ENV"] = str(directory)
    theirs["PATH"] = os.pathsep.join(filter(None, (str(directory / "bin"), ours.get("PATH"))))
    if is_packed:
        theirs["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, (str(directory / "lib"), ours.get("LD_LIBRARY_PATH"))))
    return theirs


if __name__ == "__main__":
    main()
