"""The ONNX Runtime backend: `model.onnx`, a file or a directory that holds one."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from broker.messages import ErrorCode, Item
from shm.ref import TensorRef
from workers import layout
from workers.backend import Execution, Host, Interface
from workers.backends.onnx_graph import GraphTensor, check
from workers.backends.onnx_runs import Runs
from workers.backends.onnx_session import open_session
from workers.batching import PLAIN, Array, Computed, execute_apart, execute_together
from workers.completion import complete, declared
from workers.errors import BackendError
from workers.model import ModelSpec
from workers.outcome import Outcome


class OnnxRuntimeBackend:
    """One session."""

    def __init__(self, model: ModelSpec, host: Host) -> None:
        """Nothing is loaded yet."""
        self._model = model
        self._inputs = host.inputs
        self._room = host.room
        self._runs: Runs
        self._inputs_by_name: dict[str, GraphTensor] = {}
        self._outputs: list[GraphTensor] = []
        self._declared_dims: dict[str, tuple[int, ...]] = {}
        self._is_in_place = False
        self._joiner = PLAIN
        self._ragged: set[str] = set()

    # ------------------------------------------------------------------------------------------- load

    def load(self) -> Interface:
        """Make the session and check the configuration against its graph."""
        model = self._model
        session, run_options, required, optional, outputs = open_session(model, model.threads)
        self._inputs_by_name = {tensor.name: tensor for tensor in [*required, *optional]}
        self._declared_dims = {spec.name: spec.dims for spec in model.all_outputs}
        found = complete(model, [tensor.io for tensor in required], [tensor.io for tensor in outputs])
        self._model = model = model.completed(found)
        by_name = {tensor.name: tensor for tensor in outputs}
        check(model, self._inputs_by_name, by_name, frozenset(tensor.name for tensor in optional))
        self._outputs = [by_name[spec.name] for spec in model.all_outputs]
        self._joiner = layout.joiner(model)
        self._runs = Runs(session, run_options, self._inputs_by_name, self._outputs, self._room)
        self._is_in_place = model.kind == "CPU" and self._joiner is PLAIN and self._runs.has_known_shapes
        self._ragged = {spec.name for spec in model.inputs if spec.is_ragged}
        return Interface(declared(found, "input"), declared(found, "output"), found)

    def unload(self) -> None:
        """The process ends, and with it everything."""

    # ------------------------------------------------------------------------------------------- execute

    def execute(self, requests: Sequence[Item], execution: Execution) -> Sequence[Outcome]:
        """Run the graph once for all requests, or once for each when the model has no batch dimension."""
        together = execute_together if self._model.max_batch_size else execute_apart
        run = partial(self._run_for, requests[0]) if self._is_in_place and len(requests) == 1 else self._run
        return together(requests, self._read, run, execution, self._joiner)

    def _read(self, ref: TensorRef) -> Array:
        """An input of the graph's rank: the protocol writes scalars as [1]."""
        array = self._inputs.texts(ref) if ref.datatype == "BYTES" else self._inputs.array(ref)
        if ref.name in self._ragged:
            return array
        rank = len(self._inputs_by_name[ref.name].dims)
        return array if rank == array.ndim or rank > 1 else array.reshape(array.shape[:rank])

    def _run(self, arrays: dict[str, Array]) -> list[Computed]:
        return self._computed_all(self._runs.run(arrays))

    def _run_for(self, item: Item, arrays: dict[str, Array]) -> list[Computed]:
        return self._computed_all(self._runs.run_for(item, arrays))

    def _computed_all(self, results: Sequence[Any]) -> list[Computed]:
        return [self._computed(tensor, result) for tensor, result in zip(self._outputs, results, strict=True)]

    def _computed(self, tensor: GraphTensor, result: Any) -> Computed:
        if not isinstance(result, np.ndarray) or not tensor.datatype:
            raise BackendError(ErrorCode.UNSUPPORTED, f"output '{tensor.name}' is a {tensor.type}, not a tensor")
        if result.ndim == 0:
            result = result.reshape(self._declared_dims.get(tensor.name) or (1,))
        elif result.ndim == 1 and self._model.max_batch_size and not self._declared_dims.get(tensor.name):
            result = result.reshape(-1, 1)
        return Computed(tensor.name, tensor.datatype, result)
