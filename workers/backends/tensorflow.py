"""The TensorFlow backend: SavedModels (`model.savedmodel`) and frozen graphs (`model.graphdef`), each in a session."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np

from broker.messages import ErrorCode, Item
from shm.ref import TensorRef
from shm.tensor import NUMPY
from workers.backend import Execution, Host, Interface
from workers.backends import tensorflow_files
from workers.backends.signature import Tensor, complete, flat, refuse, travelling, with_batching
from workers.backends.tensorflow_import import tensorflow
from workers.batching import Array, Computed, execute_apart, execute_together
from workers.errors import BackendError
from workers.layout import joiner
from workers.model import ModelSpec
from workers.outcome import Outcome

_MAX_CALLABLES = 64
"""For so many choices of outputs what there is to do is kept."""


class TensorFlowBackend:
    """One graph and one session."""

    def __init__(self, model: ModelSpec, host: Host) -> None:
        """Nothing is loaded yet."""
        self._model = model
        self._inputs = host.inputs
        self._log = host.log
        self._session: Any = None
        self._fed: dict[str, Tensor] = {}
        self._given: dict[str, Tensor] = {}  # the outputs that there is a use for
        self._flat: frozenset[str] = frozenset()
        self._places: Mapping[str, str] = {}  # of inputs and outputs in the graph
        self._declared = {spec.name: spec.dims for spec in model.all_outputs}
        self._joiner = joiner(model)
        self._callable = lru_cache(_MAX_CALLABLES)(self._make_callable)

    # ------------------------------------------------------------------------------------------- load

    def load(self) -> Interface:
        """Make the session, load the file into it, check the configuration against its signature."""
        model = self._model
        tensorflow.get_logger().setLevel("ERROR")
        self._check_kind()
        if model.integer("MAX_SESSION_SHARE_COUNT") > 1:
            self._log("W", "MAX_SESSION_SHARE_COUNT has no effect: every instance is a process of its own")
        path = tensorflow_files.find(model)
        self._session = tensorflow.compat.v1.Session(graph=tensorflow.Graph(), config=_options(model))
        load = tensorflow_files.load_graphdef if path.is_file() else tensorflow_files.load_savedmodel
        with self._session.graph.as_default():
            signature = load(model, path, self._session, partial(self._log, "W"))
        self._session.graph.finalize()
        self._model, found = with_batching(model, signature.can_batch)
        interface = complete(self._model, signature.inputs, signature.outputs, found)
        self._fed = {tensor.name: tensor for tensor in signature.inputs}
        self._flat = flat(self._model, signature.inputs)
        wanted = {spec.name for spec in model.all_outputs} | {io.name for io in interface.outputs}
        self._given = {tensor.name: tensor for tensor in signature.outputs if tensor.name in wanted}
        self._places = signature.places
        return interface

    def unload(self) -> None:
        """The process ends, and with it everything."""

    def _check_kind(self) -> None:
        model = self._model
        if model.kind == "GPU" and not tensorflow.config.list_physical_devices("GPU"):
            raise BackendError(
                ErrorCode.UNAVAILABLE,
                f"instance '{model.instance}' has kind KIND_GPU, but this TensorFlow sees no GPU: "
                "pip install 'tensorflow[and-cuda]' in place of tensorflow-cpu",
            )
        accelerators = model.config.get("optimization", {}).get("execution_accelerators", {})
        if accelerators.get("cpu_execution_accelerator"):
            raise refuse("CPU Execution Accelerator is not supported in TensorFlow backend")

    # ------------------------------------------------------------------------------------------- execute

    def execute(self, requests: Sequence[Item], execution: Execution) -> Sequence[Outcome]:
        """Run the graph once for all requests, or once for each when it has no batch dimension."""
        together = execute_together if self._model.max_batch_size else execute_apart
        run = partial(self._run, self._wanted(requests))
        return together(requests, self._read, run, execution, self._joiner)

    def _wanted(self, requests: Sequence[Item]) -> tuple[str, ...]:
        """The outputs that some request asks for, states of sequences among them: no others are computed."""
        if not all(request.outputs for request in requests):
            return tuple(self._given)
        asked = {name for request in requests for name in request.outputs} | self._model.hidden
        return tuple(name for name in self._given if name in asked)

    def _read(self, ref: TensorRef) -> Array:
        array = self._inputs.array(ref)
        return array.reshape(-1) if ref.name in self._flat else array

    def _run(self, wanted: tuple[str, ...], arrays: dict[str, Array]) -> list[Computed]:
        try:
            call = self._callable(tuple(arrays), wanted)
            results = call(*[self._typed(name, array) for name, array in arrays.items()])
        except Exception as error:  # code that we did not write
            text = tensorflow_files.describe(error)
            raise BackendError(ErrorCode.INTERNAL, f"TensorFlow failed to execute: {text}") from error
        return [self._computed(self._given[name], result) for name, result in zip(wanted, results, strict=True)]

    def _make_callable(self, fed: Iterable[str], wanted: Iterable[str]) -> Callable[..., Sequence[Any]]:
        """A function of these inputs that computes these outputs."""
        call: Callable[..., Sequence[Any]] = self._session.make_callable(
            [self._places[name] for name in wanted], [self._places[name] for name in fed]
        )
        return call

    def _typed(self, name: str, array: Array) -> Array:
        """An input in numpy's type of it; TensorFlow reads it where it lies."""
        return array.view(tensorflow.bfloat16.as_numpy_dtype) if self._fed[name].datatype == "BF16" else array

    def _computed(self, tensor: Tensor, result: Any) -> Computed:
        array = np.asarray(result, dtype=np.object_) if tensor.datatype == "BYTES" else np.asarray(result)
        if tensor.datatype == "BF16":
            array = array.view(NUMPY["BF16"])
        array = travelling(array, self._declared.get(tensor.name), bool(self._model.max_batch_size))
        return Computed(tensor.name, tensor.datatype, array)


def _options(model: ModelSpec) -> Any:
    """The session's. Raises BackendError."""
    threads = {
        key: model.integer(key) for key in ("TF_NUM_INTRA_THREADS", "TF_NUM_INTER_THREADS") if model.parameter(key)
    }
    for key, count in threads.items():
        if count < 0:
            raise refuse(f"parameter '{key}' must be non-negative number for tensorflow model '{model.name}'")
    options = tensorflow.compat.v1.ConfigProto(
        intra_op_parallelism_threads=threads.get("TF_NUM_INTRA_THREADS", 0) or model.threads,
        inter_op_parallelism_threads=threads.get("TF_NUM_INTER_THREADS", 0) or model.threads,
        use_per_session_threads=model.flag("TF_USE_PER_SESSION_THREADS", False),
        allow_soft_placement=model.settings.get("allow-soft-placement", "true").lower() == "true",
    )
    options.gpu_options.per_process_gpu_memory_fraction = _fraction(model)
    options.gpu_options.allow_growth = not _fraction(model)
    return options


def _fraction(model: ModelSpec) -> float:
    """How much of a GPU's memory is taken at once; 0: what is needed, as it is needed. Raises BackendError."""
    text = model.settings.get("gpu-memory-fraction", "0")
    try:
        fraction = float(text)
    except ValueError:
        fraction = -1.0
    if not 0 <= fraction <= 1:
        raise refuse(f"setting 'gpu-memory-fraction' of tensorflow must be a number from 0 to 1, got '{text}'")
    return fraction
