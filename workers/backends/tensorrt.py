"""The TensorRT backend: `model.plan`, an engine that was built for this kind of GPU and version of TensorRT.

Written from TensorRT's documentation (https://docs.nvidia.com/deeplearning/tensorrt/, version 10).
"""

import ctypes
from collections.abc import Sequence
from typing import Any

import cupy
import numpy as np
import tensorrt

from broker.messages import ErrorCode, Item
from shm.datatypes import expected_byte_size
from shm.ref import TensorRef
from shm.tensor import as_array
from workers import layout
from workers.backend import Execution, Host, Interface
from workers.backends.tensorrt_plan import (
    DATATYPES,
    Engine,
    EngineTensor,
    Profile,
    Range,
    Shape,
    check,
    complete,
    graph_batches,
    pick,
    plugins,
    profiles_of,
)
from workers.batching import PLAIN, Array, Computed, execute_apart, execute_together
from workers.completion import declared
from workers.cuda_buffers import Buffer
from workers.errors import BackendError
from workers.model import ModelSpec
from workers.outcome import Outcome

_SEVERITIES = {"INTERNAL_ERROR": "E", "ERROR": "E", "WARNING": "W", "INFO": "V", "VERBOSE": "V"}


class TensorRTBackend:
    """One engine, with an execution context for each of its optimisation profiles that the instance uses."""

    def __init__(self, model: ModelSpec, host: Host) -> None:
        """Nothing is loaded yet."""
        self._model = model
        self._inputs = host.inputs
        self._log = host.log
        self._logger = _logger(host)
        self._engine: Any = None
        self._plan = Engine((), ())
        self._profiles: tuple[Profile, ...] = ()
        self._contexts: dict[int, Any] = {}
        self._stream: Any = None
        self._buffers: dict[str, Buffer] = {}
        self._graphs: dict[tuple[int, tuple[Shape, ...]], Any] = {}
        self._graph_batches: frozenset[int] = frozenset()
        self._joiner = PLAIN

    # ------------------------------------------------------------------------------------------- load

    def load(self) -> Interface:
        """Read the engine and check the configuration against it."""
        model = self._model
        if model.kind != "GPU":
            text = f"unable to load model '{model.name}', TensorRT backend supports only GPU device"
            raise BackendError(ErrorCode.INVALID_ARG, text)
        self._engine = self._read_engine()
        self._plan = describe(self._engine)
        found = complete(model, self._plan)
        self._model = model = model.completed(found)
        check(model, self._plan)
        self._profiles = profiles_of(model, self._plan)
        self._graph_batches = frozenset() if self._has_shape_tensors else graph_batches(model)
        self._joiner = layout.joiner(model)
        self._stream = cupy.cuda.Stream(non_blocking=True)
        self._contexts = {profile.number: self._context(profile) for profile in self._profiles}
        self._buffers = {tensor.name: Buffer() for tensor in self._plan.tensors if not tensor.is_shape}
        return Interface(declared(found, "input"), declared(found, "output"), found)

    def unload(self) -> None:
        """The process ends, and with it everything."""

    def _read_engine(self) -> Any:
        path = self._model.file("model.plan")
        try:
            for library in plugins(self._model):
                ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
            tensorrt.init_libnvinfer_plugins(self._logger, "")
            runtime = tensorrt.Runtime(self._logger)
            if self._model.settings.get("version-compatible", "").lower() == "true":
                runtime.engine_host_code_allowed = True
            engine = runtime.deserialize_cuda_engine(path.read_bytes())
        except OSError as error:
            raise BackendError(ErrorCode.UNAVAILABLE, f"failed to load '{path}': {error}") from error
        if engine is None:
            raise BackendError(
                ErrorCode.INTERNAL,
                f"failed to load '{path}': {self._logger.last or 'unable to create TensorRT engine'}",
            )
        return engine

    def _context(self, profile: Profile) -> Any:
        context = self._engine.create_execution_context()
        if context is None or not context.set_optimization_profile_async(profile.number, self._stream.ptr):
            text = f"unable to use optimization profile {profile.number}: {self._logger.last}"
            raise BackendError(ErrorCode.INTERNAL, text)
        self._stream.synchronize()
        return context

    @property
    def _has_shape_tensors(self) -> bool:
        return any(tensor.is_shape for tensor in self._plan.tensors)

    # ------------------------------------------------------------------------------------------- execute

    def execute(self, requests: Sequence[Item], execution: Execution) -> Sequence[Outcome]:
        """Run the engine once for all requests, or once for each when the model has no batch dimension."""
        together = execute_together if self._model.max_batch_size else execute_apart
        return together(requests, self._read, self._run, execution, self._joiner)

    def _read(self, ref: TensorRef) -> Array:
        return self._inputs.array(ref)

    def _run(self, arrays: dict[str, Array]) -> list[Computed]:
        batch = next(iter(len(array) for array in arrays.values()), 0) if self._model.max_batch_size else 0
        given = {
            tensor.name: _values(arrays[tensor.name], batch) if tensor.is_shape else arrays[tensor.name]
            for tensor in self._plan.inputs
        }
        shapes = {
            tensor.name: tuple(map(int, given[tensor.name])) if tensor.is_shape else given[tensor.name].shape
            for tensor in self._plan.inputs
        }
        profile = pick(self._profiles, shapes)
        try:
            return self._execute(profile, given, batch)
        except BackendError:
            raise
        except Exception as error:  # code that we did not write
            raise BackendError(ErrorCode.INTERNAL, f"TensorRT: {error}") from error

    def _execute(self, profile: Profile, given: dict[str, Array], batch: int) -> list[Computed]:
        context = self._contexts[profile.number]
        for tensor in self._plan.inputs:
            self._bind_input(context, tensor, given[tensor.name])
        outputs = [self._bind_output(context, tensor) for tensor in self._plan.outputs]
        is_fixed = not any(isinstance(output.shape, _Allocator) for output in outputs)
        key = (profile.number, tuple(array.shape for array in given.values()))
        self._launch(context, key, is_fixed and batch in self._graph_batches)
        for output in outputs:
            output.download(self._stream)
        self._stream.synchronize()
        return [output.computed(batch) for output in outputs]

    def _bind_input(self, context: Any, tensor: EngineTensor, array: Array) -> None:
        if tensor.is_shape:
            if not context.set_tensor_address(tensor.name, array.ctypes.data):
                raise self._failed(f"the values {array.tolist()} of shape tensor '{tensor.name}'")
            return
        if not context.set_input_shape(tensor.name, array.shape):
            raise self._failed(f"shape {list(array.shape)} of input '{tensor.name}'")
        self._place(context, tensor.name, array.nbytes).upload(array, self._stream)

    def _bind_output(self, context: Any, tensor: EngineTensor) -> "_Output":
        shape = tuple(context.get_tensor_shape(tensor.name))
        if tensor.is_shape:
            values = _ShapeOutput(tensor, shape)
            context.set_tensor_address(tensor.name, values.address)
            return values
        if -1 in shape:
            allocator = _Allocator(self._buffers[tensor.name])
            if not context.set_output_allocator(tensor.name, allocator):
                raise self._failed(f"an output allocator for '{tensor.name}'")
            return _Output(tensor, self._buffers[tensor.name], allocator)
        size = expected_byte_size(tensor.datatype, shape) or 0
        return _Output(tensor, self._place(context, tensor.name, size), shape)

    def _place(self, context: Any, name: str, byte_size: int) -> Buffer:
        buffer = self._buffers[name]
        if buffer.reserve(byte_size):
            self._graphs.clear()  # they have the old address in them
        context.set_tensor_address(name, buffer.address)
        return buffer

    def _launch(self, context: Any, key: tuple[int, tuple[Shape, ...]], has_graph: bool) -> None:
        """Execute on the stream. A graph is recorded the second time: the first one still sets things up."""
        graph = self._graphs.get(key)
        if graph is None:
            is_recorded = has_graph and key in self._graphs
            if is_recorded:
                self._stream.begin_capture()
            is_enqueued = context.execute_async_v3(self._stream.ptr)
            if is_recorded:
                graph = self._stream.end_capture()
            if not is_enqueued:
                raise self._failed("the execution")
            if has_graph:
                self._graphs[key] = graph
        if graph is not None:
            graph.launch(self._stream)

    def _failed(self, what: str) -> BackendError:
        return BackendError(ErrorCode.INTERNAL, f"TensorRT refuses {what}: {self._logger.last}")


class _Output:
    """One output of an execution."""

    def __init__(self, tensor: EngineTensor, buffer: "Buffer | None", shape: "Shape | _Allocator") -> None:
        self.shape = shape
        self._tensor = tensor
        self._buffer = buffer

    def download(self, stream: Any) -> None:
        """Fetch it, in the stream's order; a shape that only the execution tells is waited for."""
        if isinstance(self.shape, _Allocator):
            stream.synchronize()
            self.shape = self.shape.shape
        if self._buffer is not None:
            self._buffer.download(expected_byte_size(self._tensor.datatype, self.shape) or 0, stream)

    def computed(self, batch: int) -> Computed:
        """Its content: where it is for a whole batch, which is sent before the next one is executed, else a copy."""
        assert self._buffer is not None
        assert not isinstance(self.shape, _Allocator)
        size = expected_byte_size(self._tensor.datatype, self.shape) or 0
        array = as_array(self._tensor.datatype, self.shape, self._buffer.content(size).data)
        return Computed(self._tensor.name, self._tensor.datatype, array if batch else array.copy())


class _ShapeOutput(_Output):
    """An output in the processor's memory: values that are shapes."""

    def __init__(self, tensor: EngineTensor, shape: Shape) -> None:
        super().__init__(tensor, None, shape)
        self._values = np.zeros(shape, np.int64 if tensor.datatype == "INT64" else np.int32)

    @property
    def address(self) -> int:
        """Where the values go."""
        return int(self._values.ctypes.data)

    def computed(self, batch: int) -> Computed:
        """Without the batch's own value, the same for each item of the batch."""
        values = np.tile(self._values[1:], (batch, 1)) if batch else self._values
        return Computed(self._tensor.name, self._tensor.datatype, values)


class _Allocator(tensorrt.IOutputAllocator):  # type: ignore[misc]  # TensorRT is not there where types are checked
    """Gives an output whose size only the execution tells its memory."""

    def __init__(self, buffer: Buffer) -> None:
        tensorrt.IOutputAllocator.__init__(self)
        self._buffer = buffer
        self.shape: Shape = ()

    def reallocate_output(self, name: str, memory: int, size: int, alignment: int) -> int:
        """TensorRT asks for room."""
        del name, memory, alignment
        self._buffer.reserve(size)
        return self._buffer.address

    def notify_shape(self, name: str, shape: Any) -> None:
        """TensorRT tells the shape."""
        del name
        self.shape = tuple(shape)


def _values(array: Array, batch: int) -> Array:
    """A shape tensor's values as the engine wants them, with the batch before. Raises BackendError."""
    if not batch:
        return array
    if (array != array[0]).any():
        raise BackendError(ErrorCode.INVALID_ARG, "requests of one batch must have equal values in shape tensors")
    return np.concatenate([np.array([batch], array.dtype), array[0].ravel()])


def describe(engine: Any) -> Engine:
    """What an engine says of itself."""
    tensors = tuple(_tensor(engine, engine.get_tensor_name(index)) for index in range(engine.num_io_tensors))
    inputs = [tensor for tensor in tensors if tensor.is_input]
    profiles = tuple(
        Profile(index, {tensor.name: _range(engine, index, tensor) for tensor in inputs})
        for index in range(engine.num_optimization_profiles)
    )
    return Engine(tensors, profiles)


def _tensor(engine: Any, name: str) -> EngineTensor:
    is_input = engine.get_tensor_mode(name) == tensorrt.TensorIOMode.INPUT
    datatype = DATATYPES.get(engine.get_tensor_dtype(name).name, "")
    dims = tuple(engine.get_tensor_shape(name))
    return EngineTensor(name, datatype, dims, is_input, engine.is_shape_inference_io(name))


def _range(engine: Any, profile: int, tensor: EngineTensor) -> Range:
    if tensor.is_shape:
        least, best, most = engine.get_tensor_profile_values(profile, tensor.name)
    else:
        least, best, most = engine.get_tensor_profile_shape(tensor.name, profile)
    return Range(tuple(least), tuple(best), tuple(most))


def _logger(host: Host) -> Any:
    """TensorRT's messages in the server's log; `last` is the last error."""

    class Logger(tensorrt.ILogger):  # type: ignore[misc]  # TensorRT is not there where types are checked
        def __init__(self) -> None:
            tensorrt.ILogger.__init__(self)
            self.last = ""

        def log(self, severity: Any, text: str) -> None:
            level = _SEVERITIES.get(severity.name, "I")
            if level == "E":
                self.last = text
            host.log(level, f"TensorRT: {text}")

    return Logger()
