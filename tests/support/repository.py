"""Models for tests: directories with a config.pbtxt and, where there is one, a `model.py` out of `models/`."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

SOURCES = Path(__file__).parent / "models"

ECHO, SEGFAULT, EXIT, WAIT, FAIL, PRINT, SLEEP = range(7)
"""What the model `commands` can be told, see `models/commands.py`."""


def tensor(name: str, data_type: str = "TYPE_FP32", dims: str = "[ -1 ]") -> str:
    """One input or output of a configuration."""
    return f'{{ name: "{name}" data_type: {data_type} dims: {dims} }}'


def instances(count: int, kind: str = "KIND_CPU") -> str:
    """An instance group of a configuration."""
    return f"instance_group [ {{ count: {count} kind: {kind} }} ]"


def write_model(repository: Path, name: str, config: str, source: str = "", versions: Sequence[int] = (1,)) -> Path:
    """A model with this config.pbtxt (none when empty); `source` is copied as its `model.py`. Its directory."""
    directory = repository / name
    for version in versions:
        (directory / str(version)).mkdir(parents=True)
        if source:
            shutil.copyfile(SOURCES / f"{source}.py", directory / str(version) / "model.py")
    if config:
        (directory / "config.pbtxt").write_text(config)
    return directory


def write_identity(repository: Path, name: str, more: str = instances(1), data_type: str = "TYPE_FP32") -> Path:
    """A model that answers IN as OUT, of any length; `more` goes into its configuration."""
    io = f"input [ {tensor('IN', data_type)} ]\noutput [ {tensor('OUT', data_type)} ]\n"
    return write_model(repository, name, f'backend: "identity"\n{io}{more}\n')


def write_echo(repository: Path, name: str, more: str = instances(1), data_type: str = "TYPE_FP32") -> Path:
    """The same in Python."""
    io = f"input [ {tensor('IN', data_type)} ]\noutput [ {tensor('OUT', data_type)} ]\n"
    return write_model(repository, name, f'backend: "python"\n{io}{more}\n', "echo")


def write_counting(repository: Path, name: str, more: str = instances(1), source: str = "counting") -> Path:
    """A model that tells how often it was executed, see `models/counting.py`; `asking` asks one that is `cached`."""
    io = f"input [ {tensor('IN')} ]\noutput [ {tensor('OUT')}, {tensor('COUNT', 'TYPE_INT32', '[ 1 ]')} ]\n"
    return write_model(repository, name, f'backend: "python"\n{io}{more}\n', source)


def write_sizes(repository: Path, name: str, more: str = instances(1)) -> Path:
    """A model with inputs and outputs of any size, see `models/sizes.py`."""
    inputs = f"input [ {tensor('A')}, {tensor('B')}, {tensor('COUNT', 'TYPE_INT64', '[ 1 ]')} ]\n"
    outputs = f"output [ {tensor('SUM', 'TYPE_FP64', '[ 1 ]')}, {tensor('OUT')} ]\n"
    return write_model(repository, name, f'backend: "python"\n{inputs}{outputs}{more}\n', "sizes")


class Execution(NamedTuple):
    """One execution: in which process, and how many requests were executed together."""

    pid: int
    requests: int


class Commands:
    """A model that does what it is told (`models/commands.py`), and the directory of its records."""

    def __init__(self, repository: Path, name: str = "commands", more: str = instances(1), load: str = "") -> None:
        """Write the model; `load` is `die` or `hang`, which it does as long as it is `bad`."""
        self.name = name
        self.records = repository.parent / f"{name}.records"
        self.records.mkdir()
        values = {"directory": str(self.records), "load": load}
        parameters = "".join(
            f'parameters {{ key: "{k}" value {{ string_value: "{v}" }} }}\n' for k, v in values.items()
        )
        io = f"input [ {tensor('IN', 'TYPE_INT64', '[ 2 ]')} ]\noutput [ {tensor('OUT', 'TYPE_INT64', '[ 2 ]')} ]\n"
        self.directory = write_model(repository, name, f'backend: "python"\n{io}{parameters}{more}\n', "commands")

    def order(self, command: int, argument: int = 0, batched: bool = False) -> npt.NDArray[np.int64]:
        """The tensor IN for a command."""
        order = np.array([command, argument], np.int64)
        return order[np.newaxis] if batched else order

    def let_go(self, argument: int) -> None:
        """Let the command WAIT with this argument end."""
        (self.records / f"go_{argument}").touch()

    @property
    def is_bad(self) -> bool:
        """Whether loading goes as `load` says."""
        return (self.records / "bad").exists()

    def be_bad(self, is_bad: bool) -> None:
        """Have loading go as `load` says, or well."""
        if is_bad:
            (self.records / "bad").touch()
        else:
            (self.records / "bad").unlink(missing_ok=True)

    def executions(self, command: int, argument: int = 0) -> list[Execution]:
        """Every time that a worker began to carry out this command, in order."""
        try:
            lines = (self.records / "executions").read_text().splitlines()
        except FileNotFoundError:
            return []
        rows = [tuple(map(int, line.split())) for line in lines]
        return [Execution(*row[2:]) for row in rows if row[:2] == (command, argument)]
