"""One server for all examples of the documentation, in a copy of the repository that the examples may edit."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, Block, blocks
from tests.support.environments import write_wheel
from tests.support.server import Server

SECONDS = 60.0
_NOT_COPIED = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "results", "build", "dist")
_ROLES = {"8000": "http", "8001": "grpc", "8002": "metrics"}

WRITTEN = ("models/", "backends/")
"""Where the files are that a reader writes for the server."""

Run = Callable[[list[str]], "subprocess.CompletedProcess[str]"]


def is_script(block: Block) -> bool:
    """A Python block that is run before the server starts: its first line names a file without a directory."""
    return block.language == "python" and bool(block.file) and "/" not in block.file


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository, with the files that the pages tell a reader to write and run."""
    directory = tmp_path_factory.mktemp("docs") / "tidepool"
    shutil.copytree(ROOT, directory, ignore=_NOT_COPIED)
    (directory / ".venv").symlink_to(sys.prefix)
    (directory / "models" / "countdown" / "1").mkdir(parents=True)
    files = [block for block in blocks("python", "protobuf", "text", "csv") if block.file.startswith(WRITTEN)]
    for block in files:
        path = directory / block.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text)
    for script in filter(is_script, blocks("python")):
        done = _run([sys.executable, "-c", script.text], directory)
        assert done.returncode == 0, f"{script}: {done.stdout}{done.stderr}"
    return directory


@pytest.fixture(scope="session")
def server(clone: Path) -> Iterator[Server]:
    """`make run` with free ports, on the demonstration's models and those of the pages."""
    repositories = [f"--model-repository={clone / name}" for name in ("examples/model_repository", "models")]
    write_wheel(clone / "wheels", "inflection", "0.5.1", "def pluralize(word):\n    return word + 's'\n")
    backends = f"--backend-directory={clone / 'backends'}"
    found = Server(clone, "", backends, *repositories, env={"PYTHONPATH": str(clone), **_offline(clone)})
    found.config = clone / "configs" / "server.pbtxt"
    with found:
        for script in (clone / "examples").glob("*.py"):
            script.write_text(with_ports(script.read_text(), found))
        yield found


def _offline(clone: Path) -> dict[str, str]:
    """Packages come from a directory, where a wheel stands in for the one that the pages install."""
    settings = {"NO_INDEX": "1", "FIND_LINKS": str(clone / "wheels")}
    tools = {f"{tool}_{name}": value for tool in ("PIP", "UV") for name, value in settings.items()}
    return {**tools, "XDG_CACHE_HOME": str(clone / "cache")}


@pytest.fixture(scope="session")
def run(clone: Path, server: Server) -> Run:
    """Runs a command in the copy, with the server's ports in place of 8000, 8001 and 8002."""

    def run(command: list[str]) -> "subprocess.CompletedProcess[str]":
        return _run([with_ports(word, server) for word in command], clone)

    return run


def with_ports(text: str, server: Server) -> str:
    """A text of the pages for this server."""
    return re.sub(r"\blocalhost:(800[012])\b", lambda match: server.address(_ROLES[match[1]]), text)


def _run(command: list[str], directory: Path) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, **_offline(directory)}
    environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
    )
