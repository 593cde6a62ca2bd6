"""Ragged batches: the inputs that say where each request begins in those joined end to end, and outputs cut by shape.

What the kinds of `batch_input` and `batch_output` mean is Triton's.
"""

import itertools
import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from broker.messages import ErrorCode
from workers.batching import Array
from workers.errors import BackendError

Shape: TypeAlias = tuple[int, ...]

_DTYPES: dict[str, type[np.generic]] = {"INT32": np.int32, "FP32": np.float32}


def describe(kind: str, datatype: str, shapes: Sequence[Shape], has_batch: bool) -> Array:
    """The content of a batch input, from the shapes of its source in each request."""
    dtype = _DTYPES[datatype]
    counts = [math.prod(shape) for shape in shapes]
    match kind:
        case "BATCH_ELEMENT_COUNT":
            return np.array(counts, dtype)
        case "BATCH_ACCUMULATED_ELEMENT_COUNT":
            return np.array(list(itertools.accumulate(counts)), dtype)
        case "BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO":
            return np.array(list(itertools.accumulate(counts, initial=0)), dtype)
        case "BATCH_MAX_ELEMENT_COUNT_AS_SHAPE":
            return np.zeros(max(counts), dtype)
        case _:
            items = np.array(_items(shapes, has_batch), dtype)
            return items if kind == "BATCH_ITEM_SHAPE" else items.reshape(-1)


def scatter(name: str, array: Array, dims: Shape, shapes: Sequence[Shape]) -> list[Array]:
    """Each request's part of an output; `shapes` are those of the source. Raises BackendError."""
    flat = array.reshape(-1)
    parts: list[Array] = []
    start = 0
    for shape in shapes:
        wanted = tuple([given if dim == -1 else dim for dim, given in itertools.zip_longest(dims, shape[: len(dims)])])
        if None in wanted or start + math.prod(wanted) > flat.size:
            raise BackendError(
                ErrorCode.INTERNAL,
                f"output '{name}' has shape {list(array.shape)}, which cannot be cut into parts of dims {list(dims)} "
                f"for inputs of shapes {[list(each) for each in shapes]}",
            )
        parts.append(flat[start : start + math.prod(wanted)].reshape(wanted))
        start += math.prod(wanted)
    return parts


def _items(shapes: Sequence[Shape], has_batch: bool) -> list[Shape]:
    """The shape of every item of the batch."""
    return [item for shape in shapes for item in ([shape[1:]] * shape[0] if has_batch else [shape])]
