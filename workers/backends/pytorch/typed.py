"""Tensors of a program with types against those of the configuration. Pure; the texts are Triton's where it has one."""

from typing import NamedTuple

from broker.messages import ErrorCode
from workers.backend import IO
from workers.backends.pytorch.arguments import refuse
from workers.errors import BackendError
from workers.model import ModelSpec, TensorSpec, data_type_of


class Tensor(NamedTuple):
    """What a program says of an input or output: -1 for dimensions of any size; `most` bounds the first one, 0: not."""

    name: str
    datatype: str
    dims: tuple[int, ...]
    most: int = 0


def check(model: ModelSpec, kind: str, spec: TensorSpec, tensor: Tensor) -> None:
    """Whether what the configuration declares is what the program has. Raises BackendError."""
    if spec.datatype != tensor.datatype:
        raise refuse(
            model,
            f"configuration expects datatype {spec.data_type} for {kind} '{spec.name}', "
            f"model provides {data_type_of(tensor.datatype)}",
        )
    if spec.is_ragged or spec.name in model.batch_outputs or any(spec.name in b.names for b in model.batch_inputs):
        return  # its shape has nothing to do with the batch's size
    batched(model, kind, tensor._replace(name=spec.name))
    full = (tensor.dims[0], *spec.dims) if model.max_batch_size else spec.dims
    if len(full) != len(tensor.dims) or not all(
        -1 in pair or pair[0] == pair[1] for pair in zip(full, tensor.dims, strict=True)
    ):
        raise _refuse(
            f"model '{model.name}', tensor '{spec.name}': the model expects {len(tensor.dims)} dimensions "
            f"(shape {_shape(tensor.dims)}) but the model configuration specifies {len(full)} dimensions "
            f"(shape {_shape((-1, *spec.dims) if model.max_batch_size else full)})"
        )


def declared(model: ModelSpec, kind: str, tensor: Tensor) -> IO:
    """What the program itself says of an input or output that the configuration leaves out. Raises BackendError."""
    batched(model, kind, tensor)
    return IO(tensor.name, tensor.datatype, tensor.dims[1:] if model.max_batch_size else tensor.dims)


def batched(model: ModelSpec, kind: str, tensor: Tensor) -> None:
    """Whether its first dimension can be that of a batch, where there are batches. Raises BackendError."""
    size = model.max_batch_size
    first = tensor.dims[0] if tensor.dims else 0
    if size and first != -1 and not first == size == 1:
        raise refuse(
            model,
            f"model does not support batching while non-zero max_batch_size is specified: {kind} '{tensor.name}' was "
            f"exported with shape {_shape(tensor.dims)}",
        )
    if size and tensor.most and size > tensor.most:
        raise refuse(
            model,
            f"max_batch_size is {size}, but the model was exported for batches of at most {tensor.most}",
        )


def _refuse(text: str) -> BackendError:
    return BackendError(ErrorCode.INVALID_ARG, text)


def _shape(dims: tuple[int, ...]) -> str:
    return "[" + ",".join(str(dim) for dim in dims) + "]"
