"""Backends without a process: models as a Load message describes them, requests with their tensors inline."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np

from broker.messages import Item, Load
from shm.ref import TensorRef
from shm.tensor import Regions, as_array, binary_form, datatype_of
from workers.backend import Backend, Execution, Host, Room
from workers.client_memory import ClientMemory
from workers.inputs import Inputs
from workers.model import ModelSpec
from workers.outcome import Outcome, Response


def spec(
    directory: Path, config: dict[str, Any], backend: str = "", kind: str = "KIND_CPU", **settings: str
) -> ModelSpec:
    """Version 1 of a model named `m`, and `settings` of its backend."""
    text = json.dumps({"name": "m", **config})
    return ModelSpec.from_load(
        Load("m", 1, "m_0_0", backend, str(directory), kind, 0, text, settings, (1 << 20, 1 << 20, 0), 0)
    )


def tensor(name: str, data_type: str, *dims: int, **more: Any) -> dict[str, Any]:
    """An entry of `input` or `output` of a configuration."""
    return {"name": name, "data_type": data_type, "dims": list(dims), **more}


def ref(name: str, array: np.ndarray[Any, Any], datatype: str = "") -> TensorRef:
    """A tensor that carries its bytes, of any size."""
    datatype = datatype or datatype_of(array.dtype) or ""
    data = bytes(binary_form(datatype, array))
    return TensorRef(name, datatype, array.shape, len(data), data)


def request(**inputs: np.ndarray[Any, Any] | TensorRef) -> Item:
    """A request with these inputs."""
    refs = tuple(i if isinstance(i, TensorRef) else ref(name, i) for name, i in inputs.items())
    return Item("", refs, (), {}, 0, 0, 0, 0, "reader")


def no_inputs() -> Inputs:
    """Reads inline tensors only."""
    return Inputs(Regions(), ClientMemory())


def host(room: Room = lambda item, name, size: None) -> Host:
    """A worker's offers to a backend that sends no responses by itself."""
    return Host(no_inputs(), lambda level, text: None, Mock(), Mock(), room)


def run(backend: Backend, *requests: Item) -> Sequence[Outcome]:
    """One batch."""
    return backend.execute(requests, Execution(1))


def arrays(outcome: Outcome) -> dict[str, np.ndarray[Any, Any]]:
    """The outputs of a response."""
    assert isinstance(outcome, Response), outcome
    return {o.name: as_array(o.datatype, o.shape, o.data) for o in outcome.outputs}
