"""What a loader gets, and what every format of model file is once it has been loaded."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from workers.backend import IO, Log
from workers.backends.pytorch.arguments import Call
from workers.backends.pytorch.devices import Plan
from workers.backends.pytorch.results import Wanted
from workers.backends.pytorch.settings import Settings
from workers.model import ModelSpec


class Order(NamedTuple):
    """Load this file for this model."""

    model: ModelSpec
    path: Path
    settings: Settings
    plan: Plan
    log: Log

    def warn(self, text: str) -> None:
        """A line for the operator."""
        self.log("W", text)


class Program(NamedTuple):
    """Something to call, its arguments from the inputs, its results as outputs.

    `found_inputs` and `found_outputs` are what the configuration does not declare. `device` is where the inputs go.
    """

    function: Callable[..., Any]
    arguments: Call
    outputs: Sequence[Wanted]
    found_inputs: Sequence[IO]
    found_outputs: Sequence[IO]
    device: str


def untyped(names: Sequence[str]) -> list[IO]:
    """Inputs or outputs of which only the names are known."""
    return [IO(name, "", None) for name in names]
