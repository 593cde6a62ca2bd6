"""What a model returns as outputs: which of its values is which, and as which datatype."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from broker.messages import ErrorCode
from workers.backends.pytorch import names
from workers.backends.pytorch.arguments import refuse_states
from workers.backends.pytorch.tensors import DATATYPES, to_array
from workers.batching import Array, Computed
from workers.errors import BackendError
from workers.model import ModelSpec, data_type_of


class Wanted(NamedTuple):
    """An output: its datatype ("": any) and its place among the values that the model returns.

    None: its name is the key in a dictionary, else the outputs come in their order.
    """

    name: str
    datatype: str
    place: int | None


def declared(model: ModelSpec, *tables: Mapping[str, int], has_keys: bool = False) -> list[Wanted]:
    """The configuration's outputs, by place where their names say one. `has_keys`: the model returns a dictionary."""
    specs = model.all_outputs
    places = names.bind([spec.name for spec in specs], *tables)
    if places is None and model.states and not has_keys:
        raise refuse_states(model)
    return [Wanted(s.name, s.datatype, places[i] if places is not None else None) for i, s in enumerate(specs)]


def unnamed(count: int) -> list[Wanted]:
    """So many outputs that the configuration does not declare."""
    return [Wanted(f"OUTPUT__{index}", "", index) for index in range(count)]


def missing(name: str, count: int) -> str:
    """An output beyond the last; Triton's words."""
    return (
        f"The output {name} in the model configuration refers to an output index which doesn't exist. "
        f"This model has {count} outputs"
    )


def pick(returned: Any, outputs: Sequence[Wanted]) -> list[Any]:
    """The value of each output. Raises BackendError."""
    if isinstance(returned, Mapping) and any(output.place is None for output in outputs):
        return [_by_key(returned, output.name) for output in outputs]
    values = leaves(returned)
    places = [index if output.place is None else output.place for index, output in enumerate(outputs)]
    for place, output in zip(places, outputs, strict=True):
        if place >= len(values):
            raise BackendError(ErrorCode.INVALID_ARG, missing(output.name, len(values)))
    return [values[place] for place in places]


def leaves(returned: Any) -> list[Any]:
    """The tensors and lists of strings in whatever nest of tuples, lists and dictionaries, from left to right."""
    if isinstance(returned, torch.Tensor) or _is_texts(returned):
        return [returned]
    if isinstance(returned, Mapping):
        returned = list(returned.values())
    if isinstance(returned, tuple | list):
        return [leaf for element in returned for leaf in leaves(element)]
    return [returned]


def computed(output: Wanted, value: Any) -> Computed:
    """An output of the model as it travels. Raises BackendError."""
    if _is_texts(value):
        return _typed(output, "BYTES", np.array([text.encode() for text in value], dtype=np.object_))
    if not isinstance(value, torch.Tensor):
        raise BackendError(
            ErrorCode.INVALID_ARG,
            "output must be of type Tensor, List[str] or Tuple containing one of these two types. "
            f"It is of type {type(value).__name__}",
        )
    if value.dim() == 0:
        raise BackendError(ErrorCode.INVALID_ARG, f"output '{output.name}' is a scalar which is not supported.")
    provided = DATATYPES.get(value.dtype)
    if provided is None:
        raise BackendError(
            ErrorCode.UNSUPPORTED, f"output '{output.name}' has datatype {value.dtype}, which is not supported"
        )
    return _typed(output, provided, to_array(value))


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(element, str) for element in value)


def _by_key(returned: Mapping[str, Any], name: str) -> Any:
    if name not in returned:
        raise BackendError(
            ErrorCode.INVALID_ARG,
            f"output '{name}' is not in the dictionary that the model returns: {', '.join(map(str, returned))}",
        )
    return returned[name]


def _typed(output: Wanted, provided: str, array: Array) -> Computed:
    if output.datatype and provided != output.datatype:
        raise BackendError(
            ErrorCode.INVALID_ARG,
            f"configuration expects datatype {data_type_of(output.datatype)} for output '{output.name}', "
            f"model provides {data_type_of(provided)}",
        )
    return Computed(output.name, provided, array)
