"""Classification: an output as its highest values, `VALUE:INDEX[:LABEL]`, instead of all of them. Pure."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from broker.messages import ErrorCode
from frontends.errors import RequestError
from shm.arena import Buffer
from shm.ref import TensorRef
from shm.tensor import NUMPY, serialize_bytes

MAX_ELEMENTS = 1_000_000
_UNSUPPORTED = frozenset({"BOOL", "FP16", "BF16", "BYTES"})


class Classes(NamedTuple):
    """What classifying the outputs of a model needs: has it a batch dimension, and the labels of each output."""

    is_batched: bool
    labels: Mapping[str, Sequence[str]]


def classify(ref: TensorRef, data: Buffer, count: int, classes: Classes) -> TensorRef:
    """The `count` highest values of each batch item of an output, highest first, as a BYTES tensor with its data.

    Raises RequestError.
    """
    if ref.datatype in _UNSUPPORTED:
        raise RequestError(
            ErrorCode.INVALID_ARG, f"class result not available for output due to unsupported type '{ref.datatype}'"
        )
    batch = ref.shape[:1] if classes.is_batched else ()
    per_item = math.prod(ref.shape[len(batch) :])
    shape = (*batch, min(count, per_item))
    if math.prod(shape) > MAX_ELEMENTS:
        raise RequestError(ErrorCode.INVALID_ARG, "classification output tensor too large")
    try:
        values = np.frombuffer(data, NUMPY[ref.datatype]).reshape(math.prod(batch), per_item)
    except ValueError as error:
        raise RequestError(ErrorCode.INTERNAL, f"output '{ref.name}' is malformed: {error}") from None
    labels = classes.labels.get(ref.name, ())
    texts = [text for item in values for text in _highest(item, shape[-1], labels)]
    written = serialize_bytes(np.array(texts, np.object_))
    return TensorRef(ref.name, "BYTES", shape, len(written), written)


def _highest(values: np.ndarray[Any, Any], count: int, labels: Sequence[str]) -> list[str]:
    """Equal values keep their order; NaN comes last."""
    is_float = values.dtype.kind == "f"
    order = np.argsort(-values if is_float else ~values, kind="stable")[:count]
    return [
        f"{value:.6f}:{index}{_label(labels, index)}" if is_float else f"{value}:{index}{_label(labels, index)}"
        for index, value in zip(order.tolist(), values[order].tolist(), strict=True)
    ]


def _label(labels: Sequence[str], index: int) -> str:
    return f":{labels[index]}" if index < len(labels) and labels[index] else ""
