"""An environment made from a list of packages: by uv where it is on the PATH, else by venv and pip."""

import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from workers.environments import EnvironmentFailed, say
from workers.environments.interpreter import Interpreter

LAST_LINES = 10
"""Of the build's output, for the message about its failure."""
_NEEDED = ("pyzmq", "msgspec", "numpy")
_INCLUDE = re.compile(r"^\s*(?:-r|--requirement|-c|--constraint)(?:\s+|=)(\S+)", re.MULTILINE)


def digest(file: Path, interpreter: Interpreter) -> str:
    """Equal for equal environments: of what the file (and those that it includes) says, and of the interpreter."""
    found = hashlib.sha256(f"{os.path.realpath(interpreter.path)}\0{interpreter.version}".encode())
    for part in (*_parts(file, set()), *([file.parent / "pyproject.toml"] if file.name == "uv.lock" else [])):
        content = part.read_bytes()
        found.update(b"%d\0%s" % (len(content), content))
    if not interpreter.takes_our_extensions:
        found.update(" ".join(needs()).encode())
    return found.hexdigest()


def _parts(file: Path, seen: set[Path]) -> Iterator[Path]:
    """The file and those that it includes, each once."""
    path = file.resolve()
    if path in seen or not path.is_file():
        return
    seen.add(path)
    yield path
    if path.suffix == ".txt":
        for name in _INCLUDE.findall(path.read_text(errors="replace")):
            yield from _parts(path.parent / name, seen)


def needs() -> list[str]:
    """What a worker needs of other people's packages, as the server's own metadata says it."""
    required = importlib.metadata.requires("tidepool") or []
    return [one for one in required if re.split(r"[^\w-]", one)[0] in _NEEDED]


def build(file: Path, interpreter: Interpreter, directory: Path) -> None:
    """Make the environment at `directory`. Raises EnvironmentFailed, OSError."""
    for command in steps(file, interpreter, directory, shutil.which("uv") or ""):
        _run(command, file, {**os.environ, "UV_PROJECT_ENVIRONMENT": str(directory), "PYTHONUNBUFFERED": "1"})


def steps(file: Path, interpreter: Interpreter, directory: Path, uv: str) -> Iterator[list[str]]:
    """The commands that make it; `uv` is where uv lies, `""` leaves pip. Raises EnvironmentFailed."""
    own = [] if interpreter.takes_our_extensions else needs()
    if uv:
        yield from _by_uv(uv, file, interpreter, directory, own)
    else:
        yield from _by_pip(file, interpreter, directory, own)


def _by_uv(uv: str, file: Path, interpreter: Interpreter, directory: Path, own: Sequence[str]) -> Iterator[list[str]]:
    python = str(directory / "bin" / "python")
    yield [uv, "venv", "--quiet", "--no-project", "--python", interpreter.path, str(directory)]
    install = [uv, "pip", "install", "--python", python]
    if file.name == "uv.lock":
        yield [uv, "sync", "--frozen", "--no-dev", "--no-install-project", "--python", python]
        if own:
            yield [*install, *own]
    else:
        yield [*install, "-r", str(file), *own]


def _by_pip(file: Path, interpreter: Interpreter, directory: Path, own: Sequence[str]) -> Iterator[list[str]]:
    if file.name == "uv.lock":
        raise EnvironmentFailed(f"{file} needs uv on the PATH: pip install uv")
    wanted = _dependencies(file) if file.name == "pyproject.toml" else ["-r", str(file)]
    python = str(directory / "bin" / "python")
    # pip in each environment would take longer to install than most lists of packages
    yield [interpreter.path, "-m", "venv", *(["--without-pip"] if interpreter.has_pip else []), str(directory)]
    pip = [interpreter.path, "-m", "pip", "--python", python] if interpreter.has_pip else [python, "-m", "pip"]
    if wanted or own:
        yield [*pip, "install", "--no-input", "--disable-pip-version-check", "--progress-bar=off", *wanted, *own]


def _dependencies(file: Path) -> list[str]:
    """The dependencies of a project that is not installed itself."""
    try:
        dependencies = tomllib.loads(file.read_text())["project"].get("dependencies", [])
    except (KeyError, ValueError) as error:
        raise EnvironmentFailed(f"{file} has no [project]: {error}") from None
    return [one for one in dependencies if not one.startswith("-")]


def _run(command: list[str], file: Path, environment: dict[str, str]) -> None:
    """Run a step in the model's directory; what it prints goes to the server's log. Raises EnvironmentFailed."""
    last: deque[str] = deque(maxlen=LAST_LINES)
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "workers.environments.guard", str(os.getpid()), *command],
        cwd=file.parent,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        close_fds=False,  # all that build keep the lock to their end
        start_new_session=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        say(line.rstrip())
        last.append(line.rstrip())
    if process.wait():
        raise EnvironmentFailed(
            f"the environment of {file} cannot be built: {' '.join(command[:4])} ... exited with status "
            f"{process.returncode}:\n" + "\n".join(last)
        )
