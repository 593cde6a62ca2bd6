"""An ONNX Runtime session out of a model's files, as `onnx_options` plans it."""

import re
from pathlib import Path
from typing import Any, NamedTuple

import onnxruntime

from broker.messages import ErrorCode
from workers.backends.onnx_graph import GraphTensor
from workers.backends.onnx_options import Plan, check_providers, plan
from workers.backends.onnx_sharing import create, shared_copy
from workers.errors import BackendError
from workers.model import ModelSpec

_ERROR = re.compile(r"\[ONNXRuntimeError\] : (\d+) : \w+ : (.*)", re.DOTALL)
_FAIL = 1
_TORN = "Protobuf parsing failed."


class Opened(NamedTuple):
    """A session, the options of its runs (None: the defaults), and its graph; `optional` inputs have a default."""

    session: Any
    run_options: Any
    inputs: list[GraphTensor]
    optional: list[GraphTensor]
    outputs: list[GraphTensor]


def open_session(model: ModelSpec, threads: int) -> Opened:
    """The session of a model. Raises BackendError."""
    planned = plan(model, threads, onnxruntime.get_available_providers())
    path = model.file("model.onnx")
    if path.is_dir():
        path = path / "model.onnx"
    try:
        if model.kind == "CPU" and model.flag("share_weights", False):
            path = shared_copy(path, planned, _options(model, planned))
        session = create(path, _options(model, planned), planned)
        sides = session.get_inputs(), session.get_overridable_initializers(), session.get_outputs()
        graph = [[_graph_tensor(argument) for argument in side] for side in sides]
    except BackendError:
        raise
    except Exception as error:  # whatever a broken file makes of the loader
        text = f"failed to load '{path}': {describe(error)}"
        if str(error).endswith(_TORN):
            text += f" {path.name} is no ONNX model, or a part of one: it has {path.stat().st_size} bytes"
        raise BackendError(ErrorCode.INTERNAL, text) from error
    check_providers(model, planned.providers, session.get_providers())
    return Opened(session, _run_options(planned), *graph)


def _options(model: ModelSpec, planned: Plan) -> Any:
    made = onnxruntime.SessionOptions()
    made.intra_op_num_threads = planned.intra_op_threads
    made.inter_op_num_threads = planned.inter_op_threads
    if planned.is_parallel:
        made.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
    made.enable_cpu_mem_arena = planned.has_arena
    made.enable_mem_pattern = planned.has_pattern
    made.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, planned.level)
    for key, value in planned.entries.items():
        made.add_session_config_entry(key, value)
    for name in planned.libraries:
        _register(made, library(model, name))
    return made


def library(model: ModelSpec, name: str) -> Path:
    """A library of operators, which lies in the version's or the model's directory. Raises BackendError."""
    root = model.directory.resolve()
    for directory in (model.version_directory, model.directory):
        place = (directory / name).resolve()
        if place.is_relative_to(root) and place.is_file():
            return place
    raise BackendError(
        ErrorCode.INVALID_ARG,
        f"op_library_filename '{name}' of model '{model.name}' is not there: the library has to lie in "
        f"'{model.version_directory}' or '{model.directory}'",
    )


def describe(error: Exception) -> str:
    """ONNX Runtime's error as Triton words it."""
    match = _ERROR.match(str(error))
    code, text = match.groups() if match else (_FAIL, str(error))
    return f"onnx runtime error {code}: {text}"


def _graph_tensor(argument: Any) -> GraphTensor:
    dims = tuple(dim if isinstance(dim, int) and dim >= 0 else -1 for dim in argument.shape)
    return GraphTensor(argument.name, argument.type, dims)


def _register(made: Any, path: Path) -> None:
    try:
        made.register_custom_ops_library(str(path))
    except Exception as error:  # the library's own code runs
        raise BackendError(ErrorCode.INTERNAL, f"failed to load operators from '{path}': {describe(error)}") from error


def _run_options(planned: Plan) -> Any:
    if not planned.run_entries:
        return None
    made = onnxruntime.RunOptions()
    for key, value in planned.run_entries.items():
        made.add_run_config_entry(key, value)
    return made
