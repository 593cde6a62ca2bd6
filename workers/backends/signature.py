"""What a model file says of its inputs and outputs: against the configuration, and where it says nothing. Pure.

The texts are Triton's.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from broker.messages import ErrorCode
from workers.backend import IO, Interface
from workers.batching import Array
from workers.completion import batching, is_wanted
from workers.errors import BackendError
from workers.model import ModelSpec, TensorSpec, data_type_of


class Tensor(NamedTuple):
    """An input or output of the model: its datatype ("": the protocol has none for it), and the framework's word.

    `dims` have -1 for those of any size; None when the model does not even say how many there are.
    """

    name: str
    datatype: str
    type: str
    dims: tuple[int, ...] | None


def with_batching(model: ModelSpec, can_batch: bool) -> tuple[ModelSpec, dict[str, Any]]:
    """The model as a file with a batch dimension (`can_batch`) completes it, and the fields of the configuration that
    are new: `max_batch_size`, and the dynamic batcher where no scheduler is chosen. Raises BackendError.
    """
    if not (can_batch and is_wanted(model)) or (model.max_batch_size and model.inputs and model.outputs):
        return model, {}
    found = batching(model, can_batch)
    return replace(model, max_batch_size=found.get("max_batch_size", model.max_batch_size)), found


def complete(
    model: ModelSpec, inputs: Sequence[Tensor], outputs: Sequence[Tensor], found: Mapping[str, Any]
) -> Interface:
    """All that the configuration leaves out, beside what `with_batching` has `found`.

    Raises BackendError when model and configuration do not fit together.
    """
    may_complete = is_wanted(model)
    config = dict(found)
    _check(model, inputs, outputs, may_complete)
    known = {spec.name for spec in model.fed} | model.hidden
    sides = {
        "input": [tensor for tensor in inputs if tensor.name not in known],
        "output": [] if model.outputs else [tensor for tensor in outputs if tensor.name not in model.hidden],
    }
    missing = {kind: tuple(_io(model, tensor) for tensor in tensors) for kind, tensors in sides.items()}
    for kind, tensors in sides.items():
        if may_complete and tensors and all(tensor.dims is not None for tensor in tensors):
            entries = [_entry(io, model, tensor) for io, tensor in zip(missing[kind], tensors, strict=True)]
            config[kind] = [*model.config.get(kind, ()), *entries]
    return Interface(missing["input"], missing["output"], config)


def flat(model: ModelSpec, inputs: Iterable[Tensor]) -> frozenset[str]:
    """The inputs whose shape in the model is the batch dimension alone: they travel as [n, 1]."""
    ragged = {spec.name for spec in model.inputs if spec.is_ragged}
    is_batched = model.max_batch_size > 0
    return frozenset(t.name for t in inputs if is_batched and t.dims == (-1,) and t.name not in ragged)


def travelling(array: Array, declared: tuple[int, ...] | None, is_batched: bool) -> Array:
    """An output in the shape in which clients get it: the mirror of `flat`, and no scalars.

    `declared` are its dims in the configuration, as the model has them; None where the configuration has none.
    """
    if array.ndim == 0:
        return array.reshape(declared if declared and set(declared) == {1} else (1,))
    return array.reshape(-1, 1) if array.ndim == 1 and is_batched and not declared else array


def _check(model: ModelSpec, inputs: Sequence[Tensor], outputs: Sequence[Tensor], may_complete: bool) -> None:
    if model.inputs:
        count = len(model.fed)
        if count > len(inputs) or (count < len(inputs) and not may_complete):
            raise refuse(
                f"unable to load model '{model.name}', configuration expects {count} inputs, "
                f"model provides {len(inputs)}"
            )
    for kind, specs, tensors in (("input", model.fed, inputs), ("output", model.all_outputs, outputs)):
        by_name = {tensor.name: tensor for tensor in tensors}
        for spec in specs:
            if spec.name not in by_name:
                raise unexpected(kind, spec.name, by_name)
            if spec.is_optional:
                raise refuse(
                    f"input '{spec.name}' of model '{model.name}' cannot be optional: the model has no default"
                )
            check_datatype(model, kind, spec, by_name[spec.name])
            _check_dims(model, kind, spec, by_name[spec.name].dims)


def check_datatype(model: ModelSpec, kind: str, spec: TensorSpec, tensor: Tensor) -> None:
    """Raise BackendError when an input or output (`kind`) is declared with another datatype than the model's."""
    if not tensor.datatype:
        raise unsupported(model, tensor)
    if spec.datatype != tensor.datatype:
        raise refuse(
            f"unable to load model '{model.name}', configuration expects datatype {spec.data_type} for {kind} "
            f"'{spec.name}', model provides {data_type_of(tensor.datatype)}"
        )


def _check_dims(model: ModelSpec, kind: str, spec: TensorSpec, dims: tuple[int, ...] | None) -> None:
    if dims is None:
        return
    if spec.is_ragged:
        if dims != (-1,):
            raise refuse(
                f"unable to load model '{model.name}', configuration expects model provides input with shape [-1]  for "
                f"ragged input '{spec.name}', model provides {_shape(dims)}"
            )
        return
    if spec.name in model.batch_outputs or any(spec.name in batch.names for batch in model.batch_inputs):
        return  # its shape has nothing to do with the batch's size
    if model.max_batch_size and dims[:1] != (-1,):
        raise refuse(
            f"model '{model.name}', tensor '{spec.name}': for the model to support batching the shape should have at "
            f"least 1 dimension and the first dimension must be -1; but shape expected by the model is {_shape(dims)}"
        )
    full = (-1, *spec.dims) if model.max_batch_size else spec.dims
    # An input of any size takes every configured size; outputs must be declared as they are.
    pairs = list(zip(full, dims, strict=False))
    if len(full) == len(dims) and all(have == want or (kind == "input" and want == -1) for have, want in pairs):
        return
    text = (
        f"model '{model.name}', tensor '{spec.name}': the model expects {len(dims)} dimensions "
        f"(shape {_shape(dims)}) but the model configuration specifies {len(full)} dimensions "
    )
    if model.max_batch_size:
        text += "(an initial batch dimension because max_batch_size > 0 followed by the explicit tensor shape, "
        raise refuse(f"{text}making complete shape {_shape(full)})")
    raise refuse(f"{text}(shape {_shape(full)})")


def _io(model: ModelSpec, tensor: Tensor) -> IO:
    """An input or output that the configuration leaves out, as requests are checked. Raises BackendError."""
    dims = tensor.dims
    if not tensor.datatype:
        raise unsupported(model, tensor)
    if dims == ():
        raise refuse(
            f"unable to autofill for '{model.name}': the rank of model tensor '{tensor.name}' is 0 and dimensions are "
            "not defined"
        )
    if dims is None or not model.max_batch_size:
        return IO(tensor.name, tensor.datatype, dims)
    if dims[0] != -1:
        raise refuse(
            f"autofill failed for model '{model.name}': model does not support batching while non-zero max_batch_size "
            "is specified"
        )
    return IO(tensor.name, tensor.datatype, dims[1:] or (1,))


def _entry(io: IO, model: ModelSpec, tensor: Tensor) -> dict[str, Any]:
    """The same as the configuration declares it; the model's own shape may be the batch dimension alone."""
    entry = {"name": io.name, "data_type": data_type_of(io.datatype), "dims": list(io.dims or ())}
    return {**entry, "reshape": {"shape": []}} if model.max_batch_size and tensor.dims == (-1,) else entry


def unexpected(kind: str, name: str, allowed: Iterable[str]) -> BackendError:
    """The configuration declares an input or output (`kind`) that the model does not have."""
    return refuse(f"unexpected inference {kind} '{name}', allowed {kind}s are: {', '.join(allowed)}")


def unsupported(model: ModelSpec, tensor: Tensor) -> BackendError:
    """The protocol has no datatype for a tensor."""
    return BackendError(
        ErrorCode.INTERNAL, f"unsupported datatype {tensor.type} for '{tensor.name}' for model '{model.name}'"
    )


def refuse(text: str) -> BackendError:
    """The model's configuration is wrong."""
    return BackendError(ErrorCode.INVALID_ARG, text)


def _shape(dims: Sequence[int]) -> str:
    return "[" + ",".join(map(str, dims)) + "]"
