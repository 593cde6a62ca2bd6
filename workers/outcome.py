"""What became of one request: its outputs, or its error."""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from broker.messages import Parameters
from shm.arena import Buffer
from workers.errors import BackendError


class Output(NamedTuple):
    """One output tensor; `data` is its binary form, one-dimensional bytes."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Buffer


class Response(NamedTuple):
    """What a model answers to one request."""

    outputs: Sequence[Output]
    parameters: Parameters


Outcome: TypeAlias = Response | BackendError
