"""The PyTorch backend: TorchScript models, `model.pt`."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from broker.messages import ErrorCode, Item
from shm.ref import TensorRef
from workers import layout
from workers.backend import IO, Execution, Host, Interface
from workers.batching import Array, Computed, execute_apart, execute_together
from workers.errors import BackendError
from workers.model import ModelSpec, TensorSpec, data_type_of
from workers.outcome import Outcome

_DATATYPES = {
    torch.bool: "BOOL",
    torch.uint8: "UINT8",
    torch.int8: "INT8",
    torch.int16: "INT16",
    torch.int32: "INT32",
    torch.int64: "INT64",
    torch.float16: "FP16",
    torch.float32: "FP32",
    torch.float64: "FP64",
}
_SUPPORTED = frozenset(_DATATYPES.values()) | {"BYTES"}

_INDEXED = re.compile(r".+__(\d+)")
_TRACED = re.compile(r"argument_\d+")  # what the tracer calls an argument without a name


class Argument(NamedTuple):
    """One parameter of `forward`; kind is that of its type: TensorType, ListType, DictType ..."""

    name: str
    kind: str
    has_default: bool


class PyTorchBackend:
    """One TorchScript module."""

    def __init__(self, model: ModelSpec, host: Host) -> None:
        """Nothing is loaded yet."""
        self._model = model
        self._inputs = host.inputs
        self._log = host.log
        self._device: torch.device | None = None
        self._module: Any = None
        self._arguments: dict[str, int] | None = None  # input name -> position; None: one dictionary
        self._argument_names: list[str] = []
        self._outputs: list[tuple[str, int, str]] = []  # name, index, datatype ("": any)
        self._is_inference_mode = True
        self._cleans_cache = False
        self._joiner = layout.joiner(model)

    # ------------------------------------------------------------------------------------------- load

    def load(self) -> Interface:
        """Load the module and bind its arguments and results to names."""
        model = self._model
        self._device = self._choose_device()
        self._configure()
        path = model.file("model.pt")
        try:
            self._module = torch.jit.load(str(path), map_location=self._device)
            schema = self._module.forward.schema
        except Exception as error:  # whatever a broken file makes of the loader
            raise BackendError(
                ErrorCode.INTERNAL, f"failed to load model '{model.name}' from '{path}': {_first_lines(error)}"
            ) from error
        arguments = [Argument(a.name, a.type.kind(), a.has_default_value()) for a in schema.arguments[1:]]
        inputs = self._bind_inputs(arguments)
        outputs = self._bind_outputs(_count_results(schema.returns))
        return Interface(inputs, outputs)

    def unload(self) -> None:
        """The process ends, and with it everything."""

    def _choose_device(self) -> torch.device | None:
        kind, model = self._model.kind, self._model
        if kind == "GPU":
            if not torch.cuda.is_available():
                raise BackendError(
                    ErrorCode.INVALID_ARG,
                    f"instance '{model.instance}' has kind KIND_GPU but no GPUs are available to PyTorch "
                    f"{torch.__version__}",
                )
            return torch.device("cuda:0")
        return torch.device("cpu") if kind == "CPU" else None  # KIND_MODEL: where the module was saved

    def _configure(self) -> None:
        model = self._model
        torch.set_num_threads(model.integer("INTRA_OP_THREAD_COUNT") or model.threads)
        if model.integer("INTER_OP_THREAD_COUNT"):
            torch.set_num_interop_threads(model.integer("INTER_OP_THREAD_COUNT"))
        torch._C._set_graph_executor_optimize(not model.flag("DISABLE_OPTIMIZED_EXECUTION", False))
        if model.flag("DISABLE_CUDNN", False):
            torch.backends.cudnn.enabled = False
        for key, switch in (
            ("ENABLE_JIT_EXECUTOR", torch._C._jit_set_profiling_executor),
            ("ENABLE_JIT_PROFILING", torch._C._jit_set_profiling_mode),
            ("ENABLE_TENSOR_FUSER", torch._C._jit_set_texpr_fuser_enabled),
        ):
            if model.parameter(key):
                switch(model.flag(key, True))
        if model.flag("ENABLE_WEIGHT_SHARING", False):
            self._log("W", "ENABLE_WEIGHT_SHARING has no effect: every instance is a process of its own")
        self._is_inference_mode = model.flag("INFERENCE_MODE", True)
        self._cleans_cache = model.flag("ENABLE_CACHE_CLEANING", False) and model.kind == "GPU"

    def _bind_inputs(self, arguments: list[Argument]) -> tuple[IO, ...]:
        model = self._model
        self._argument_names = [argument.name for argument in arguments]
        declared = model.fed if model.inputs else ()
        for spec in declared:
            self._check_declared("input", spec)
        if any(argument.kind == "DictType" for argument in arguments):
            self._check_dictionary(arguments)
            return ()
        self._check_arguments(arguments, len(declared))
        names = [spec.name for spec in declared] or name_arguments(arguments)
        positions = bind(names, self._argument_names)
        if positions is None:
            positions = list(range(len(names)))
            if model.inputs:
                self._log("W", f"inputs of model '{model.name}' are bound in the order of the configuration")
        for name, position in zip(names, positions, strict=True):
            if position >= len(arguments):
                raise self._refuse(f"input '{name}' is for argument {position}, forward has {len(arguments)}")
        self._arguments = dict(zip(names, positions, strict=True))
        return () if model.inputs else tuple(IO(name, "", None) for name in names if name not in model.hidden)

    def _bind_outputs(self, count: int) -> tuple[IO, ...]:
        model = self._model
        for spec in model.all_outputs:
            self._check_declared("output", spec)
        if not model.outputs:
            self._outputs = [(f"OUTPUT__{index}", index, "") for index in range(count)]
            return tuple(IO(name, "", None) for name, _, _ in self._outputs if name not in model.hidden)
        specs = model.all_outputs
        indices = indexes([spec.name for spec in specs]) or list(range(len(specs)))
        self._outputs = [(s.name, i, s.datatype) for s, i in zip(specs, indices, strict=True)]
        return ()

    def _check_declared(self, kind: str, spec: TensorSpec) -> None:
        if spec.datatype not in _SUPPORTED:
            raise self._refuse(f"unsupported datatype {spec.data_type} for {kind} '{spec.name}'")
        if spec.datatype == "BYTES" and len(spec.dims) + bool(self._model.max_batch_size) > 1:
            raise self._refuse(
                f"Triton only supports 1 dimensional List of String as {kind} for '{spec.name}' "
                f"for model '{self._model.name}'"
            )

    def _check_dictionary(self, arguments: list[Argument]) -> None:
        if len(arguments) > 1:
            raise self._refuse("a model that takes a dictionary must not take anything else")
        if not self._model.inputs:
            raise self._refuse(
                "model configuration must contain at least one input, none were specified: "
                "they are the keys of the dictionary that the model takes"
            )

    def _check_arguments(self, arguments: list[Argument], count: int) -> None:
        for argument in arguments:
            if argument.kind not in {"TensorType", "ListType", "OptionalType"}:
                raise self._refuse(
                    f"argument '{argument.name}' of forward has type {argument.kind}, "
                    "but only Tensor, List[str] and Dict[str, Tensor] are supported"
                )
        required = sum(not argument.has_default for argument in arguments)
        if count and count < required:
            raise self._refuse(f"configuration expects {count} inputs, model provides at least {required}")
        if count > len(arguments):
            raise self._refuse(f"configuration expects {count} inputs, model provides at most {len(arguments)}")

    def _refuse(self, text: str) -> BackendError:
        return BackendError(ErrorCode.INVALID_ARG, f"unable to load model '{self._model.name}', {text}")

    # ------------------------------------------------------------------------------------------- execute

    def execute(self, requests: Sequence[Item], execution: Execution) -> Sequence[Outcome]:
        """Run the module once for all requests, or once for each when the model has no batch dimension."""
        if not self._model.max_batch_size:
            return execute_apart(requests, self._read_private, self._run, execution, self._joiner)
        read = self._read_private if len(requests) == 1 else self._read
        return execute_together(requests, read, self._run, execution, self._joiner)

    def _read_private(self, ref: TensorRef) -> Array:
        """A module may work on its inputs in place; numpy's write protection would not keep it from that."""
        return self._inputs.texts(ref) if _is_text(ref) else self._inputs.private(ref)

    def _read(self, ref: TensorRef) -> Array:
        return self._inputs.texts(ref) if _is_text(ref) else self._inputs.array(ref)

    def _run(self, inputs: dict[str, Array]) -> list[Computed]:
        values = {name: self._to_torch(array) for name, array in inputs.items()}
        try:
            with torch.inference_mode() if self._is_inference_mode else torch.no_grad():
                results = self._call(values)
                computed = [self._output(name, results, index, datatype) for name, index, datatype in self._outputs]
        except BackendError:
            raise
        except Exception as error:  # code that we did not write
            raise BackendError(ErrorCode.INTERNAL, f"PyTorch execute failure: {error}") from error
        if self._cleans_cache:
            torch.cuda.empty_cache()
        return computed

    def _call(self, values: dict[str, Any]) -> Sequence[Any]:
        if self._arguments is None:
            results = self._module(values)
        else:
            by_position = {self._arguments[name]: value for name, value in values.items()}
            if sorted(by_position) == list(range(len(by_position))):
                results = self._module(*[by_position[i] for i in range(len(by_position))])
            else:
                results = self._module(**{self._argument_names[i]: value for i, value in by_position.items()})
        return results if isinstance(results, tuple) else (results,)

    def _to_torch(self, array: Array) -> Any:
        if array.dtype == np.object_:
            return list(array.reshape(-1))
        tensor = torch.from_numpy(array)
        return tensor if self._device is None or self._device.type == "cpu" else tensor.to(self._device)

    def _output(self, name: str, results: Sequence[Any], index: int, datatype: str) -> Computed:
        if index >= len(results):
            raise BackendError(
                ErrorCode.INVALID_ARG,
                f"The output {name} in the model configuration refers to an output index which doesn't exist. "
                f"This model has {len(results)} outputs",
            )
        result = results[index]
        if isinstance(result, list) and all(isinstance(element, str) for element in result):
            return _typed(name, "BYTES", datatype, np.array([s.encode() for s in result], dtype=np.object_))
        if not isinstance(result, torch.Tensor):
            raise BackendError(
                ErrorCode.INVALID_ARG,
                "output must be of type Tensor, List[str] or Tuple containing one of these two types. "
                f"It is of type {type(result).__name__}",
            )
        if result.dim() == 0:
            raise BackendError(ErrorCode.INVALID_ARG, f"output '{name}' is a scalar which is not supported.")
        provided = _DATATYPES.get(result.dtype)
        if provided is None:
            raise BackendError(
                ErrorCode.UNSUPPORTED, f"output '{name}' has datatype {result.dtype}, which is not supported"
            )
        return _typed(name, provided, datatype, result.detach().cpu().contiguous().numpy())


def name_arguments(arguments: Sequence[Argument]) -> list[str]:
    """Names for inputs that the configuration does not declare: `forward`'s own, else `INPUT__0` and so on."""
    if any(_TRACED.fullmatch(argument.name) for argument in arguments):
        return [f"INPUT__{index}" for index in range(len(arguments))]
    return [argument.name for argument in arguments]


def bind(names: Sequence[str], argument_names: Sequence[str]) -> list[int] | None:
    """The position of each input among `forward`'s arguments: by name, else by `__<index>`; None by neither."""
    if all(name in argument_names for name in names):
        return [argument_names.index(name) for name in names]
    return indexes(names)


def indexes(names: Sequence[str]) -> list[int] | None:
    """The numbers at the end of names that all are `<text>__<number>`."""
    matches = [_INDEXED.fullmatch(name) for name in names]
    return [int(match[1]) for match in matches if match] if all(matches) else None


def _count_results(returns: Sequence[Any]) -> int:
    """How many results a TorchScript method has: the elements of a tuple, else one."""
    returned = returns[0].type
    return len(returned.elements()) if returned.kind() == "TupleType" else 1


def _is_text(ref: TensorRef) -> bool:
    """Strings travel apart from tensors; what torch could not take is refused here, for one request alone."""
    if ref.datatype not in _SUPPORTED:
        raise BackendError(
            ErrorCode.UNSUPPORTED, f"input '{ref.name}' has datatype {ref.datatype}, which PyTorch models do not take"
        )
    return ref.datatype == "BYTES"


def _typed(name: str, provided: str, expected: str, array: Array) -> Computed:
    if expected and provided != expected:
        raise BackendError(
            ErrorCode.INVALID_ARG,
            f"configuration expects datatype {data_type_of(expected)} for output '{name}', "
            f"model provides {data_type_of(provided)}",
        )
    return Computed(name, provided, array)


def _first_lines(error: Exception) -> str:
    """What went wrong, without torch's C++ stack."""
    return str(error).partition("\nException raised from")[0].partition("\nTraceback")[0].strip()
