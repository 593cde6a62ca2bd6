"""The Dockerfiles, without Docker: that their instructions fit the project, and what they install and start."""

import json
import re
import shutil
import subprocess
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import pytest

from configs import server as settings

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FILES = ("Dockerfile", "Dockerfile.pytorch")
INSTRUCTIONS = {"ARG", "CMD", "COPY", "ENV", "EXPOSE", "FROM", "RUN", "WORKDIR"}

files = pytest.mark.parametrize("file", FILES)


class Instruction(NamedTuple):
    """One line of a Dockerfile, continuations included."""

    name: str
    text: str


def read(file: str) -> list[Instruction]:
    text = "".join(
        line for line in (ROOT / file).read_text().splitlines(keepends=True) if not line.lstrip().startswith("#")
    )
    lines = text.replace("\\\n", " ").splitlines()
    return [Instruction(*line.split(maxsplit=1)) for line in lines if line.strip()]


def texts(file: str, name: str) -> list[str]:
    return [instruction.text for instruction in read(file) if instruction.name == name]


def argument(file: str, name: str) -> str:
    (value,) = [text.partition("=")[2] for text in texts(file, "ARG") if text.startswith(f"{name}=")]
    return value


def install(file: str) -> str:
    (command,) = [text for text in texts(file, "RUN") if "pip install" in text]
    return command


@files
def test_instructions_are_known_and_in_order(file: str) -> None:
    names = [instruction.name for instruction in read(file)]
    assert set(names) <= INSTRUCTIONS
    assert names[:2] == ["ARG", "FROM"]
    assert names[-1] == "CMD"
    assert texts(file, "FROM") == ["${BASE}"]


@files
def test_all_that_is_installed_is_copied(file: str) -> None:
    sources = [word for text in texts(file, "COPY") for word in text.split()[:-1]]
    assert all((ROOT / source).exists() for source in sources)
    ignored = [line.removeprefix("**/") for line in (ROOT / ".dockerignore").read_text().split()]
    assert not [source for source in sources if any(fnmatch(source, pattern) for pattern in ignored)]
    packages = {package.partition(".")[0] for package in PROJECT["tool"]["setuptools"]["packages"]}
    assert packages | {"pyproject.toml", PROJECT["project"]["readme"], "constraints.txt"} <= set(sources)
    for text in texts(file, "COPY"):
        *copied, target = text.split()
        assert target == ("/src/" if len(copied) > 1 else f"/src/{copied[0]}")


@files
def test_extras_and_constraints_exist(file: str) -> None:
    command = install(file)
    assert '"/src[${EXTRAS}]"' in command
    assert "--constraint /src/constraints.txt" in command
    assert set(argument(file, "EXTRAS").split(",")) <= PROJECT["project"]["optional-dependencies"].keys()


def test_the_images_own_pytorch_stays(tmp_path: Path) -> None:
    shutil.copyfile(ROOT / "constraints.txt", tmp_path / "constraints.txt")
    (edit,) = re.findall(r"^(sed .*?) &&", install("Dockerfile.pytorch"))
    subprocess.run(edit.strip().replace("/src", str(tmp_path)), shell=True, check=True, timeout=30)
    left = (tmp_path / "constraints.txt").read_text()
    assert "\ntorch==" in (ROOT / "constraints.txt").read_text()
    assert "\ntorch==" not in left
    assert "\nnumpy==" in left
    required = PROJECT["project"]["optional-dependencies"][argument("Dockerfile.pytorch", "EXTRAS")]
    assert not [requirement for requirement in required if re.match(r"torch\b", requirement)]
    assert "--system-site-packages" in " ".join(texts("Dockerfile.pytorch", "RUN"))


@files
def test_the_command_is_installed_and_takes_its_flags(file: str, tmp_path: Path) -> None:
    program, *flags = json.loads(texts(file, "CMD")[0])
    assert program in PROJECT["project"]["scripts"]
    assert f"{program}/bin" in texts(file, "ENV")[0]
    config = settings.load([flag.replace("=/models", f"={tmp_path}") for flag in flags])
    assert config.model_repository == (tmp_path,)
    ports = {str(port) for port in (config.http_port, config.grpc_port, config.metrics_port)}
    assert set(texts(file, "EXPOSE")[0].split()) == ports
