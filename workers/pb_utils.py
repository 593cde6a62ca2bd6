"""What Python models import as `triton_python_backend_utils` (and `c_python_backend_utils`)."""

import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np

from broker.messages import ErrorCode, Item
from shm.arena import INLINE, Buffer
from shm.ref import TensorRef
from shm.tensor import binary_form, datatype_of, deserialize_bytes, serialize_bytes
from workers import dlpack
from workers.autocomplete import ModelConfig
from workers.backend import Outcome, Output, Response
from workers.errors import BackendError
from workers.inputs import Inputs

__all__ = [  # noqa: RUF022  in the order in which they are defined
    "TRITONSERVER_REQUEST_FLAG_SEQUENCE_START",
    "TRITONSERVER_REQUEST_FLAG_SEQUENCE_END",
    "TRITON_STRING_TO_NUMPY",
    "TritonModelException",
    "TritonError",
    "Logger",
    "Tensor",
    "InferenceRequest",
    "InferenceResponse",
    "ModelConfig",
    "get_input_tensor_by_name",
    "get_output_tensor_by_name",
    "get_input_config_by_name",
    "get_output_config_by_name",
    "using_decoupled_model_transaction_policy",
    "triton_to_numpy_type",
    "numpy_to_triton_type",
    "triton_string_to_numpy",
    "serialize_byte_tensor",
    "deserialize_bytes_tensor",
    "get_model_dir",
]

TRITONSERVER_REQUEST_FLAG_SEQUENCE_START = 1
TRITONSERVER_REQUEST_FLAG_SEQUENCE_END = 2

_UNAVAILABLE = {
    "InferenceResponseSender": "response senders",
    "ResponseIterator": "calling other models (BLS)",
    "PreferredMemory": "calling other models (BLS)",
    "TRITONSERVER_MEMORY_CPU": "calling other models (BLS)",
    "TRITONSERVER_MEMORY_GPU": "calling other models (BLS)",
    "InferenceTrace": "tracing",
    "TRITONSERVER_RESPONSE_COMPLETE_FINAL": "decoupled models and response senders",
    "TRITONSERVER_REQUEST_RELEASE_ALL": "iterative sequences",
    "TRITONSERVER_REQUEST_RELEASE_RESCHEDULE": "iterative sequences",
    "Metric": "custom metrics",
    "MetricFamily": "custom metrics",
    "MetricKind": "custom metrics",
    "load_model": "loading and unloading models from a model",
    "unload_model": "loading and unloading models from a model",
    "is_model_ready": "loading and unloading models from a model",
}


def __getattr__(name: str) -> NoReturn:
    """Names of Triton's that this server lacks say so."""
    if name in _UNAVAILABLE:
        raise AttributeError(f"triton_python_backend_utils.{name}: {_UNAVAILABLE[name]}: not available in this server")
    raise AttributeError(f"module 'triton_python_backend_utils' has no attribute '{name}'")


class TritonModelException(Exception):
    """Whatever the backend, not the model, finds wrong."""


def _not_available(what: str) -> NoReturn:
    raise TritonModelException(f"{what}: not available in this server")


# ----------------------------------------------------------------------------------------------- datatypes

TRITON_STRING_TO_NUMPY: dict[str, Any] = {
    "TYPE_BOOL": bool,
    "TYPE_UINT8": np.uint8,
    "TYPE_UINT16": np.uint16,
    "TYPE_UINT32": np.uint32,
    "TYPE_UINT64": np.uint64,
    "TYPE_INT8": np.int8,
    "TYPE_INT16": np.int16,
    "TYPE_INT32": np.int32,
    "TYPE_INT64": np.int64,
    "TYPE_FP16": np.float16,
    "TYPE_FP32": np.float32,
    "TYPE_FP64": np.float64,
    "TYPE_STRING": np.object_,
}

_CODES = {
    "BOOL": 1,
    "UINT8": 2,
    "UINT16": 3,
    "UINT32": 4,
    "UINT64": 5,
    "INT8": 6,
    "INT16": 7,
    "INT32": 8,
    "INT64": 9,
    "FP16": 10,
    "FP32": 11,
    "FP64": 12,
    "BYTES": 13,
    "BF16": 14,
}
_NUMPY_BY_CODE: dict[int, Any] = {
    1: np.bool_,
    **{_CODES[key.removeprefix("TYPE_")]: value for key, value in list(TRITON_STRING_TO_NUMPY.items())[1:-1]},
    13: np.object_,
}
_CODE_BY_NUMPY: dict[Any, int] = {**{v: k for k, v in _NUMPY_BY_CODE.items()}, np.bytes_: 13}


def triton_string_to_numpy(triton_type_string: str) -> Any:
    """The numpy type of a configuration's `data_type`. Raises KeyError."""
    return TRITON_STRING_TO_NUMPY[triton_type_string]


def triton_to_numpy_type(data_type: int) -> Any:
    """The numpy type of a datatype's number, None where numpy has none."""
    return _NUMPY_BY_CODE.get(data_type)


def numpy_to_triton_type(data_type: Any) -> int | None:
    """The mirror of `triton_to_numpy_type`."""
    return _CODE_BY_NUMPY.get(data_type)


def serialize_byte_tensor(input_tensor: np.ndarray[Any, Any]) -> bytes | tuple[()]:
    """The binary form of a BYTES tensor; `()` for one without elements."""
    return serialize_bytes(input_tensor) if input_tensor.size else ()


def deserialize_bytes_tensor(encoded_tensor: Buffer) -> np.ndarray[Any, Any]:
    """The mirror of `serialize_byte_tensor`: a one-dimensional object array of `bytes`."""
    return deserialize_bytes(encoded_tensor)


# ----------------------------------------------------------------------------------------------- errors and log


class TritonError:
    """The error of one request: a text for its client and a code."""

    UNKNOWN = int(ErrorCode.UNKNOWN)
    INTERNAL = int(ErrorCode.INTERNAL)
    NOT_FOUND = int(ErrorCode.NOT_FOUND)
    INVALID_ARG = int(ErrorCode.INVALID_ARG)
    UNAVAILABLE = int(ErrorCode.UNAVAILABLE)
    UNSUPPORTED = int(ErrorCode.UNSUPPORTED)
    ALREADY_EXISTS = int(ErrorCode.ALREADY_EXISTS)
    CANCELLED = int(ErrorCode.CANCELLED)

    def __init__(self, message: str, code: int = INTERNAL) -> None:
        """`code` is one of this class's."""
        self._message = str(message)
        self._code = ErrorCode(code)

    def message(self) -> str:
        """The text."""
        return self._message

    def code(self) -> int:
        """The code."""
        return int(self._code)


class Logger:
    """Lines for the server's log."""

    INFO = "I"
    WARNING = "W"
    ERROR = "E"
    VERBOSE = "V"

    @staticmethod
    def log(message: str, level: str = INFO) -> None:
        """Write `message` at one of this class's levels."""
        _write(level, message)

    @staticmethod
    def log_info(message: str) -> None:
        """Write at level INFO."""
        _write(Logger.INFO, message)

    @staticmethod
    def log_warn(message: str) -> None:
        """Write at level WARNING."""
        _write(Logger.WARNING, message)

    @staticmethod
    def log_error(message: str) -> None:
        """Write at level ERROR."""
        _write(Logger.ERROR, message)

    @staticmethod
    def log_verbose(message: str) -> None:
        """Write at level VERBOSE: shown when the server is verbose."""
        _write(Logger.VERBOSE, message)


def _write(level: str, message: str) -> None:
    caller = sys._getframe(2)
    _server.log(level, f"{os.path.basename(caller.f_code.co_filename)}:{caller.f_lineno}] {message}")


class _Server:
    """This process's side of the module: set once, before the model is imported."""

    def __init__(self) -> None:
        self.log: Callable[[str, str], None] = lambda level, text: None
        self.version_directory = ""


_server = _Server()


def connect(log: Callable[[str, str], None], version_directory: str) -> None:
    """Tell the module where its lines go and where the model is."""
    _server.log = log
    _server.version_directory = version_directory


def get_model_dir() -> str:
    """The directory of the model's version."""
    return _server.version_directory


# ----------------------------------------------------------------------------------------------- tensors


class Tensor:
    """A named tensor: an output in numpy's memory, or an input in the server's."""

    __slots__ = ("_array", "_datatype", "_inputs", "_name", "_ref")
    _name: str
    _datatype: str
    _array: np.ndarray[Any, Any] | None
    _ref: TensorRef
    _inputs: Inputs

    def __init__(self, name: str, numpy_array: np.ndarray[Any, Any]) -> None:
        """Raises TypeError, and TritonModelException for what the protocol cannot carry."""
        if not isinstance(numpy_array, np.ndarray):
            raise TypeError(f"tensor '{name}' must be made of a numpy.ndarray, not of a {type(numpy_array).__name__}")
        datatype = datatype_of(numpy_array.dtype)
        if datatype is None:
            raise TritonModelException("NumPy dtype is not supported.")
        self._set(name, datatype, numpy_array)

    def _set(self, name: str, datatype: str, array: np.ndarray[Any, Any] | None) -> None:
        if name == "":
            raise TritonModelException("Tensor name cannot be an empty string.")
        _check_text(name)
        self._name = name
        self._datatype = datatype
        self._array = array

    @classmethod
    def received(cls, ref: TensorRef, inputs: Inputs) -> "Tensor":
        """An input. Raises BackendError when its strings are malformed."""
        tensor = cls.__new__(cls)
        tensor._name = ref.name
        tensor._datatype = ref.datatype
        tensor._ref = ref
        tensor._inputs = inputs
        tensor._array = inputs.private(ref) if ref.datatype == "BYTES" else None
        return tensor

    @classmethod
    def from_dlpack(cls, name: str, tensor: object) -> "Tensor":
        """A tensor in the memory of any object, or capsule, of the DLPack protocol."""
        made = cls.__new__(cls)
        try:
            made._set(name, *dlpack.import_tensor(tensor))
        except dlpack.DLPackError as error:
            raise TritonModelException(str(error)) from None
        return made

    def name(self) -> str:
        """The tensor's name."""
        return self._name

    def shape(self) -> list[int]:
        """Its shape, with the batch dimension."""
        return list(self._ref.shape if self._array is None else self._array.shape)

    def triton_dtype(self) -> int:
        """The number of its datatype."""
        return _CODES[self._datatype]

    def is_cpu(self) -> bool:
        """True: tensors are in the processor's memory."""
        return True

    def as_numpy(self) -> np.ndarray[Any, Any]:
        """The array; an input's may be written to, which nobody else sees."""
        if self._datatype == "BF16":
            raise TritonModelException("NumPy has no BF16: use to_dlpack() or torch.from_dlpack().")
        return self._bits()

    def to_dlpack(self) -> object:
        """A DLPack capsule over the tensor's memory."""
        return self.__dlpack__()

    def __dlpack__(self, stream: object = None) -> object:
        """The DLPack protocol; `stream` has no meaning in the processor's memory."""
        try:
            return dlpack.export_tensor(self._datatype, self._bits())
        except dlpack.DLPackError as error:
            raise TritonModelException(str(error)) from None

    def __dlpack_device__(self) -> tuple[int, int]:
        """The DLPack protocol's number of the processor."""
        return dlpack.CPU

    def output(self) -> Output:
        """What the worker sends of it."""
        array = self._bits()
        if self._datatype != "BYTES" and array.nbytes <= INLINE:
            return Output(self._name, self._datatype, array.shape, array.tobytes())
        return Output(self._name, self._datatype, array.shape, binary_form(self._datatype, array))

    def _bits(self) -> np.ndarray[Any, Any]:
        """The array, BF16 as the bits of its elements."""
        if self._array is None:
            self._array = self._inputs.private(self._ref)
        return self._array


# ----------------------------------------------------------------------------------------------- requests, responses


class InferenceRequest:
    """One request of a batch."""

    __slots__ = ("_flags", "_inputs", "_item", "_output_names")
    _item: Item
    _flags: int
    _inputs: list[Tensor]
    _output_names: frozenset[str]

    def __init__(self, *args: object, **kwargs: object) -> None:
        """Models receive requests; to make one is to call another model."""
        _not_available("calling other models (BLS)")

    @classmethod
    def received(cls, item: Item, inputs: Inputs, output_names: frozenset[str]) -> "InferenceRequest":
        """A client's request; `output_names` are all that the model has. Raises BackendError."""
        request = cls.__new__(cls)
        request._item = item
        request._flags = item.flags
        request._inputs = [Tensor.received(ref, inputs) for ref in item.inputs]
        request._output_names = output_names
        return request

    def inputs(self) -> list[Tensor]:
        """The inputs that the client sent."""
        return self._inputs

    def requested_output_names(self) -> set[str]:
        """The outputs that the client wants."""
        return set(self._item.outputs or self._output_names)

    def request_id(self) -> str:
        """The client's name for the request."""
        return self._item.request_id

    def correlation_id(self) -> int | str:
        """The sequence that it belongs to; 0 for none."""
        return self._item.correlation_id

    def flags(self) -> int:
        """TRITONSERVER_REQUEST_FLAG_*."""
        return self._flags

    def set_flags(self, flags: int) -> None:
        """Change the flags."""
        self._flags = flags

    def timeout(self) -> int:
        """The client's timeout in microseconds, 0 for none."""
        return self._item.timeout_us

    def parameters(self) -> str:
        """The custom parameters as JSON text."""
        return json.dumps(self._item.parameters) if self._item.parameters else "{}"

    def is_cancelled(self) -> bool:
        """False: a request whose client has gone is dropped before a model sees it, but not told of it afterwards."""
        return False

    def exec(self, *args: object, **kwargs: object) -> NoReturn:
        """Refused."""
        _not_available("calling other models (BLS)")

    def async_exec(self, *args: object, **kwargs: object) -> NoReturn:
        """Refused."""
        _not_available("calling other models (BLS)")

    def get_response_sender(self) -> NoReturn:
        """Refused."""
        _not_available("response senders")

    def set_release_flags(self, flags: int) -> NoReturn:
        """Refused."""
        _not_available("iterative sequences")

    def trace(self) -> NoReturn:
        """Refused."""
        _not_available("tracing")


class InferenceResponse:
    """The answer to one request: output tensors, or an error."""

    __slots__ = ("_error", "_parameters", "_tensors")

    def __init__(
        self,
        output_tensors: Sequence[Tensor] = (),
        error: TritonError | None = None,
        parameters: dict[str, Any] | None = None,
    ) -> None:
        """With an error the tensors do not matter. Raises TypeError, TritonModelException."""
        for tensor in output_tensors:
            if tensor is None:
                raise TritonModelException("Output tensor for inference response should not be empty.")
            if not isinstance(tensor, Tensor):
                raise TypeError(f"an output tensor must be a pb_utils.Tensor, not a {type(tensor).__name__}")
        for key, value in (parameters or {}).items():
            _check_parameter(key, value)
        self._tensors = list(output_tensors)
        self._error = error
        self._parameters = parameters or {}

    def output_tensors(self) -> list[Tensor]:
        """The outputs."""
        return self._tensors

    def has_error(self) -> bool:
        """True for an error."""
        return self._error is not None

    def error(self) -> TritonError | None:
        """The error, if it is one."""
        return self._error

    def parameters(self) -> str:
        """The response parameters as JSON text."""
        return json.dumps(self._parameters)

    def outcome(self) -> Outcome:
        """What the worker sends of it."""
        if self._error is not None:
            return BackendError(ErrorCode(self._error.code()), self._error.message())
        by_name = {tensor.name(): tensor for tensor in self._tensors}  # the last of a name counts
        return Response([tensor.output() for tensor in by_name.values()], self._parameters)


def _check_parameter(key: object, value: object) -> None:
    """Raise for what a response cannot carry."""
    if not isinstance(key, str):
        raise TypeError(f"the name of a response parameter must be a str, not {type(key)}")
    if not isinstance(value, bool | int | str):
        raise TritonModelException(f"Expect parameters values to have type bool/int/str, found type {type(value)}")
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        raise TritonModelException(f"response parameter '{key}' does not fit into 64 bits")
    for text in (key, value):
        if isinstance(text, str):
            _check_text(text)


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TritonModelException(f"{text!r} is not text: {error.reason}") from None


# ----------------------------------------------------------------------------------------------- helpers


def get_input_tensor_by_name(inference_request: InferenceRequest, name: str) -> Tensor | None:
    """The input of that name, None when the client sent none."""
    return _by_name(inference_request.inputs(), name)


def get_output_tensor_by_name(inference_response: InferenceResponse, name: str) -> Tensor | None:
    """The output of that name, None when there is none."""
    return _by_name(inference_response.output_tensors(), name)


def _by_name(tensors: list[Tensor], name: str) -> Tensor | None:
    for tensor in tensors:
        if tensor.name() == name:
            return tensor
    return None


def get_input_config_by_name(model_config: dict[str, Any], name: str) -> dict[str, Any] | None:
    """The configuration of an input, None when there is none."""
    return _config_by_name(model_config.get("input", []), name)


def get_output_config_by_name(model_config: dict[str, Any], name: str) -> dict[str, Any] | None:
    """The configuration of an output, None when there is none."""
    return _config_by_name(model_config.get("output", []), name)


def _config_by_name(entries: list[dict[str, Any]], name: str) -> dict[str, Any] | None:
    for entry in entries:
        if entry["name"] == name:
            return entry
    return None


def using_decoupled_model_transaction_policy(model_config: dict[str, Any]) -> bool:
    """Is the model decoupled?"""
    return bool(model_config.get("model_transaction_policy", {}).get("decoupled", False))


for _class in (TritonModelException, TritonError, Logger, Tensor, InferenceRequest, InferenceResponse, ModelConfig):
    _class.__module__ = "c_python_backend_utils"  # where models find them, and what Triton's messages call them
