"""SavedModels and graphs: found, read into a session, and what they say of their inputs and outputs."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from broker.messages import ErrorCode
from workers.backends.signature import Tensor, check_datatype, refuse, unexpected
from workers.backends.tensorflow_import import tensorflow
from workers.errors import BackendError
from workers.model import ModelSpec, TensorSpec

_DATATYPES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "bfloat16": "BF16",
    "float32": "FP32",
    "float64": "FP64",
    "string": "BYTES",
}
"""V2 datatypes by TensorFlow's names."""
_FILES = {"tensorflow_savedmodel": "model.savedmodel", "tensorflow_graphdef": "model.graphdef"}
_DEFAULT_SIGNATURE = "serving_default"
_INIT_SIGNATURE = "__saved_model_init_op"

_TRACES = ("Graph execution error:", "Detected at node ", "[[{{node ")

Warn = Callable[[str], None]


class Signature(NamedTuple):
    """The inputs and outputs of a model, and their places in the graph."""

    inputs: Sequence[Tensor]
    outputs: Sequence[Tensor]
    places: Mapping[str, str]
    can_batch: bool  # the file says that there is a batch dimension


def find(model: ModelSpec) -> Path:
    """The model's file, or directory for a SavedModel. Raises BackendError."""
    platform = model.config.get("platform", "")
    if platform not in _FILES:
        raise refuse(f"platform of model '{model.name}' must be {' or '.join(_FILES)}, got '{platform}'")
    path = model.file(_FILES[platform])
    if path.is_dir() != (platform == "tensorflow_savedmodel"):
        what = "directory" if path.is_dir() else "file"
        raise refuse(f"'{path}' is a {what}, which is not what platform '{platform}' of model '{model.name}' needs")
    return path


def load_savedmodel(model: ModelSpec, path: Path, session: Any, warn: Warn) -> Signature:
    """Load a SavedModel into the session. Raises BackendError."""
    tag = model.parameter("TF_GRAPH_TAG") or "serve"
    try:
        meta = tensorflow.compat.v1.saved_model.load(session, [tag], str(path))
    except Exception as error:  # whatever a broken file makes of the loader
        raise _failed(path, error) from error
    signature = meta.signature_def[_choose(model, list(meta.signature_def), path, warn)]
    inputs, outputs = [
        [_tensor(*item) for item in sorted(side.items())] for side in (signature.inputs, signature.outputs)
    ]
    places = {name: info.name for side in (signature.inputs, signature.outputs) for name, info in side.items()}
    return Signature(inputs, outputs, places, _can_batch(model, inputs, outputs))


def load_graphdef(model: ModelSpec, path: Path, session: Any, warn: Warn) -> Signature:
    """Load a frozen graph into the session; only the configuration knows inputs and outputs. Raises BackendError."""
    graph = tensorflow.compat.v1.GraphDef()
    try:
        graph.ParseFromString(path.read_bytes())
        if not graph.node:
            raise ValueError("there is no node in it")
        tensorflow.import_graph_def(graph, name="")
    except Exception as error:  # whatever a broken file makes of the parser
        raise _failed(path, error) from error
    if not model.inputs or not model.outputs:
        kind = "output" if model.inputs else "input"
        raise refuse(f"model configuration must contain at least one {kind}, none were specified: a graph names none")
    operations = session.graph.get_operations()
    starts = [operation.name for operation in operations if operation.type == "Placeholder"]
    ends = [o.name for o in operations if o.outputs and not any(output.consumers() for output in o.outputs)]
    inputs = [_node(model, session.graph, "input", spec, starts) for spec in model.fed]
    outputs = [_node(model, session.graph, "output", spec, ends) for spec in model.all_outputs]
    _initialise(model, path, session)
    return Signature(inputs, outputs, {tensor.name: _place(tensor.name) for tensor in (*inputs, *outputs)}, False)


def describe(error: Exception) -> str:
    """What went wrong, without TensorFlow's traces of nodes and source."""
    text = str(getattr(error, "message", "") or error)
    lines = [line.strip() for line in text.partition("\n\nOriginal stack trace")[0].splitlines()]
    told = [line for line in lines if line and not line.startswith(_TRACES)]
    return " ".join(told) or text.strip() or type(error).__name__


def _choose(model: ModelSpec, names: Sequence[str], path: Path, warn: Warn) -> str:
    """The signature that is served. Raises BackendError."""
    wanted = model.parameter("TF_SIGNATURE_DEF")
    if (wanted or _DEFAULT_SIGNATURE) in names:
        return wanted or _DEFAULT_SIGNATURE
    there = sorted(name for name in names if name != _INIT_SIGNATURE)
    if wanted or not there:
        raise refuse(
            f"unable to load model '{model.name}', expected to find signature_def "
            f"'{wanted or _DEFAULT_SIGNATURE}' in '{path}', there are: {', '.join(there) or 'none'}"
        )
    warn(f"model '{model.name}' has no signature_def '{_DEFAULT_SIGNATURE}', '{there[0]}' is served in its place")
    return there[0]


def _tensor(name: str, info: Any) -> Tensor:
    """An input or output of a signature."""
    if info.WhichOneof("encoding") != "name":
        return Tensor(name, "", "sparse or composite", None)
    type_name = tensorflow.dtypes.as_dtype(info.dtype).name
    shape = info.tensor_shape
    dims = None if shape.unknown_rank else tuple(dim.size for dim in shape.dim)
    return Tensor(name, _DATATYPES.get(type_name, ""), type_name, dims)


def _can_batch(model: ModelSpec, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> bool:
    """Every first dimension is of any size; dims in the configuration tell whether one of them is for the batch."""
    for specs, tensors in ((model.fed, inputs), (model.all_outputs, outputs)):
        declared = {spec.name: len(spec.dims) for spec in specs}
        for tensor in tensors:
            if tensor.dims is not None and (tensor.dims[:1] != (-1,) or declared.get(tensor.name) == len(tensor.dims)):
                return False
    return True


def _node(model: ModelSpec, graph: Any, kind: str, spec: TensorSpec, allowed: Sequence[str]) -> Tensor:
    """A tensor of the graph. As in Triton nobody checks its shape. Raises BackendError."""
    try:
        found = graph.get_tensor_by_name(_place(spec.name))
    except (KeyError, ValueError):
        raise unexpected(kind, spec.name, allowed) from None
    tensor = Tensor(spec.name, _DATATYPES.get(found.dtype.name, ""), found.dtype.name, None)
    check_datatype(model, kind, spec, tensor)
    return tensor


def _place(name: str) -> str:
    return name if ":" in name else f"{name}:0"


def _initialise(model: ModelSpec, path: Path, session: Any) -> None:
    """Run the operations that a file of the model lists. Raises BackendError."""
    name = model.parameter("TF_INIT_OPS_FILE")
    if not name:
        return
    relative = PurePath(os.path.normpath(name))
    if relative.is_absolute() or relative.parts[:1] == ("..",):
        raise refuse(f"TF_INIT_OPS_FILE '{name}' of model '{model.name}' leaves the model directory")
    places = [directory / relative for directory in (model.version_directory, model.directory)]
    file = next((place for place in places if place.is_file()), places[0])
    try:
        operations = json.loads(file.read_text(encoding="utf-8"))["init_ops"]
        session.run([session.graph.get_operation_by_name(operation) for operation in operations])
    except Exception as error:
        raise BackendError(
            ErrorCode.INTERNAL,
            f"failed to initialise '{path}' by the init_ops of '{file}': {type(error).__name__}: {describe(error)}",
        ) from error


def _failed(path: Path, error: Exception) -> BackendError:
    return BackendError(ErrorCode.INTERNAL, f"failed to load '{path}': {type(error).__name__}: {describe(error)}")
