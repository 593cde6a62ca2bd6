"""An ONNX graph's inputs and outputs against those of the configuration. Pure; the texts are Triton's."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from broker.messages import ErrorCode
from workers.backend import IO
from workers.errors import BackendError
from workers.model import ModelSpec, TensorSpec, data_type_of

DATATYPES = {
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
    "float": "FP32",
    "double": "FP64",
    "string": "BYTES",
}
"""V2 datatypes by what ONNX Runtime writes into `tensor(...)`."""


class GraphTensor(NamedTuple):
    """An input or output of the graph: its type in ONNX Runtime's spelling, -1 for dimensions of any size."""

    name: str
    type: str
    dims: tuple[int, ...]

    @property
    def datatype(self) -> str:
        """The V2 datatype, "" for what the protocol cannot carry."""
        return DATATYPES.get(self.type.removeprefix("tensor(").removesuffix(")"), "")

    @property
    def io(self) -> IO:
        """What it says of itself."""
        return IO(self.name, self.datatype, self.dims)


def check(
    model: ModelSpec,
    inputs: Mapping[str, GraphTensor],
    outputs: Mapping[str, GraphTensor],
    optional: frozenset[str],
) -> None:
    """Raise BackendError when the configuration does not fit the graph; `optional` are inputs with a default."""
    if not model.outputs:
        raise _refuse(f"the configuration of model '{model.name}' has no outputs, and auto-completion is off")
    expected = sum(not spec.is_optional for spec in model.fed)
    provided = sum(name not in optional for name in inputs)
    if expected != provided:
        raise _refuse(
            f"unable to load model '{model.name}', configuration expects {expected} inputs, model provides {provided}"
        )
    for kind, specs, tensors in (("input", model.fed, inputs), ("output", model.all_outputs, outputs)):
        for spec in specs:
            if spec.name not in tensors:
                allowed = ", ".join(tensors)
                raise _refuse(f"unexpected inference {kind} '{spec.name}', allowed {kind}s are: {allowed}")
            if spec.is_optional and (spec.name not in optional or model.max_batch_size):
                raise _refuse(
                    f"input '{spec.name}' of model '{model.name}' can be optional only when the graph has a default "
                    "for it and max_batch_size is 0"
                )
            _check_tensor(model, kind, spec, tensors[spec.name])


def can_batch(tensor: GraphTensor) -> bool:
    """Its first dimension is of any size."""
    return tensor.dims[:1] == (-1,)


def _check_tensor(model: ModelSpec, kind: str, spec: TensorSpec, tensor: GraphTensor) -> None:
    if not tensor.datatype:
        raise _unsupported(model, tensor, tensor.type)
    if spec.datatype != tensor.datatype:
        raise _refuse(
            f"unable to load model '{model.name}', configuration expects datatype {spec.data_type} for {kind} "
            f"'{spec.name}', model provides {data_type_of(tensor.datatype)}"
        )
    if spec.is_ragged:
        if tensor.dims != (-1,) or spec.is_optional:
            raise _refuse(
                f"unable to load model '{model.name}', configuration expects model provides input with shape [-1]  for "
                f"ragged input '{spec.name}', model provides {_shape(tensor.dims)}"
            )
        return
    if spec.name in model.batch_outputs or any(spec.name in batch.names for batch in model.batch_inputs):
        return  # its shape has nothing to do with the batch's size
    if not tensor.dims and not model.max_batch_size:
        if any(dim != 1 for dim in spec.dims):
            raise _refuse(
                f"model '{model.name}', scalar tensor '{spec.name}', should only provide 1 in the model configuration "
                "when the model doesn't support batching."
            )
        return
    if model.max_batch_size and not can_batch(tensor):
        raise _refuse(
            f"model '{model.name}', tensor '{spec.name}': for the model to support batching the shape should have at "
            f"least 1 dimension and the first dimension must be -1; but shape expected by the model is "
            f"{_shape(tensor.dims)}"
        )
    full = (-1, *spec.dims) if model.max_batch_size else spec.dims
    if len(full) != len(tensor.dims) or not all(
        _fits(kind, wanted, given) for given, wanted in zip(full, tensor.dims, strict=True)
    ):
        raise _mismatch(model, spec, tensor, full)


def _fits(kind: str, wanted: int, given: int) -> bool:
    """An input of any size takes every configured size; outputs must be declared as they are."""
    return wanted == given or (kind == "input" and wanted == -1)


def _mismatch(model: ModelSpec, spec: TensorSpec, tensor: GraphTensor, full: tuple[int, ...]) -> BackendError:
    text = (
        f"model '{model.name}', tensor '{spec.name}': the model expects {len(tensor.dims)} dimensions "
        f"(shape {_shape(tensor.dims)}) but the model configuration specifies {len(full)} dimensions "
    )
    if not model.max_batch_size:
        return _refuse(f"{text}(shape {_shape(full)})")
    return _refuse(
        f"{text}(an initial batch dimension because max_batch_size > 0 followed by the explicit tensor shape, "
        f"making complete shape {_shape(full)})"
    )


def _unsupported(model: ModelSpec, tensor: GraphTensor, datatype: str) -> BackendError:
    return BackendError(
        ErrorCode.INTERNAL, f"unsupported datatype {datatype} for '{tensor.name}' for model '{model.name}'"
    )


def _refuse(text: str) -> BackendError:
    return BackendError(ErrorCode.INVALID_ARG, text)


def _shape(dims: Sequence[int]) -> str:
    return "[" + ",".join(str(dim) for dim in dims) + "]"
