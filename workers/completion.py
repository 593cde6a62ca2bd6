"""What a model's own inputs and outputs complete in its configuration: themselves, and that it can batch. Pure.

The rule is Triton's, for backends whose model files say what goes in and out.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from broker.messages import ErrorCode
from workers.backend import IO
from workers.errors import BackendError
from workers.model import ModelSpec, data_type_of, datatype_of

_MAX_BATCH_SIZE = 4
_SCHEDULERS = ("dynamic_batching", "sequence_batching")


def complete(model: ModelSpec, inputs: Sequence[IO], outputs: Sequence[IO]) -> dict[str, Any]:
    """Fields of the configuration, in JSON form, for a file with these inputs and outputs (dims with the batch's).

    Empty where the configuration has inputs and outputs already, or nothing is to be completed. Raises BackendError.
    """
    has_inputs = bool(model.inputs or model.batch_inputs)
    if not is_wanted(model) or (has_inputs and model.outputs):
        return {}
    found = batching(model, all(io.dims is not None and io.dims[:1] == (-1,) for io in (*inputs, *outputs)))
    is_batched = found.get("max_batch_size", model.max_batch_size) > 0
    for key, has_them, tensors in (("input", has_inputs, inputs), ("output", bool(model.outputs), outputs)):
        if not has_them:
            found[key] = [_entry(io, is_batched) for io in tensors if io.name not in model.hidden]
    return found


def declared(found: Mapping[str, Any], key: str) -> tuple[IO, ...]:
    """The `input` or `output` of what `complete` has found, as requests are checked against."""
    return tuple(IO(io["name"], datatype_of(io["data_type"]), tuple(io["dims"])) for io in found.get(key, ()))


def batching(model: ModelSpec, can_batch: bool) -> dict[str, Any]:
    """`max_batch_size`, and the dynamic batcher where no scheduler is chosen; `can_batch`: the first dimension of every
    input and output is of any size. Raises BackendError."""
    if can_batch:
        return sized(model, model.max_batch_size or _default_max_batch_size(model))
    if model.max_batch_size:
        raise BackendError(
            ErrorCode.INVALID_ARG,
            f"autofill failed for model '{model.name}': model does not support batching while non-zero "
            "max_batch_size is specified",
        )
    return {}


def sized(model: ModelSpec, size: int) -> dict[str, Any]:
    """The same for batches of up to `size`, where that is known."""
    found: dict[str, Any] = {}
    if size != model.max_batch_size:
        found["max_batch_size"] = size
    if size > 1 and not any(scheduler in model.config for scheduler in _SCHEDULERS):
        found["dynamic_batching"] = {}
    return found


def is_wanted(model: ModelSpec) -> bool:
    """The server may complete configurations."""
    return model.settings.get("auto-complete-config", "true").lower() == "true"


def _default_max_batch_size(model: ModelSpec) -> int:
    text = model.settings.get("default-max-batch-size", str(_MAX_BATCH_SIZE))
    try:
        return max(0, int(text))
    except ValueError:
        raise BackendError(
            ErrorCode.INVALID_ARG, f"failed to convert '{text}' to integer (setting 'default-max-batch-size')"
        ) from None


def _entry(io: IO, is_batched: bool) -> dict[str, Any]:
    """A tensor as the configuration declares it; one that has no dimension is sent with one of size 1."""
    dims = (io.dims or ())[1 if is_batched else 0 :]
    entry = {"name": io.name, "data_type": data_type_of(io.datatype), "dims": list(dims or (1,))}
    return entry if dims else {**entry, "reshape": {"shape": []}}
