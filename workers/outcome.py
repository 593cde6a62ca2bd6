"""What became of one request: its outputs, or its error."""

from collections.abc import Sequence
from enum import Enum
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


class Again(Enum):
    """No answer yet: the model wants to execute the request once more."""

    AGAIN = "again"


AGAIN = Again.AGAIN
Outcome: TypeAlias = Response | BackendError
