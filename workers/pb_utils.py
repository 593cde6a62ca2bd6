"""What Python models import as `triton_python_backend_utils` (and `c_python_backend_utils`)."""

import os
import sys
from typing import Any

import numpy as np

from shm.arena import Buffer
from shm.tensor import deserialize_bytes, serialize_bytes
from workers import current
from workers.autocomplete import ModelConfig
from workers.pb_calls import (
    TRITONSERVER_MEMORY_CPU,
    TRITONSERVER_MEMORY_GPU,
    InferenceTrace,
    PreferredMemory,
    ResponseIterator,
)
from workers.pb_control import is_model_ready, load_model, unload_model
from workers.pb_errors import TritonError, TritonModelException
from workers.pb_metrics import Metric, MetricFamily, MetricKind
from workers.pb_requests import (
    TRITONSERVER_REQUEST_RELEASE_ALL,
    TRITONSERVER_REQUEST_RELEASE_RESCHEDULE,
    InferenceRequest,
)
from workers.pb_responses import TRITONSERVER_RESPONSE_COMPLETE_FINAL, InferenceResponse, InferenceResponseSender
from workers.pb_server import server
from workers.pb_tensor import CODES, Tensor

__all__ = [  # noqa: RUF022  in the order in which they are defined
    "TRITONSERVER_REQUEST_FLAG_SEQUENCE_START",
    "TRITONSERVER_REQUEST_FLAG_SEQUENCE_END",
    "TRITONSERVER_REQUEST_RELEASE_ALL",
    "TRITONSERVER_REQUEST_RELEASE_RESCHEDULE",
    "TRITONSERVER_RESPONSE_COMPLETE_FINAL",
    "TRITONSERVER_MEMORY_CPU",
    "TRITONSERVER_MEMORY_GPU",
    "TRITON_STRING_TO_NUMPY",
    "TritonModelException",
    "TritonError",
    "Logger",
    "Tensor",
    "InferenceRequest",
    "InferenceResponse",
    "InferenceResponseSender",
    "InferenceTrace",
    "PreferredMemory",
    "ResponseIterator",
    "Metric",
    "MetricFamily",
    "MetricKind",
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
    "is_model_ready",
    "load_model",
    "unload_model",
]

TRITONSERVER_REQUEST_FLAG_SEQUENCE_START = 1
TRITONSERVER_REQUEST_FLAG_SEQUENCE_END = 2


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

_NUMPY_BY_CODE: dict[int, Any] = {
    1: np.bool_,
    **{CODES[key.removeprefix("TYPE_")]: value for key, value in list(TRITON_STRING_TO_NUMPY.items())[1:-1]},
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


# ----------------------------------------------------------------------------------------------- log


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
    server.log(level, f"{current.tag()}{os.path.basename(caller.f_code.co_filename)}:{caller.f_lineno}] {message}")


def get_model_dir() -> str:
    """The directory of the model's version."""
    return server.version_directory


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


for _class in (
    TritonModelException,
    TritonError,
    Logger,
    Tensor,
    InferenceRequest,
    InferenceResponse,
    InferenceResponseSender,
    InferenceTrace,
    PreferredMemory,
    ResponseIterator,
    Metric,
    MetricFamily,
    MetricKind,
    ModelConfig,
):
    _class.__module__ = "c_python_backend_utils"  # where models find them, and what Triton's messages call them
