"""Requests of different sizes in one dimension of an input, padded to be one batch, and outputs cut back again."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from workers.batching import Array
from workers.model import ModelSpec

_VALUE, _BUCKETS = "pad_value.", "pad_buckets."


@dataclass(frozen=True, slots=True)
class Padding:
    """How one input is padded; `axis` counts the batch dimension, `value` is the text of the parameter."""

    axis: int
    buckets: tuple[int, ...]
    value: str

    def size(self, arrays: Sequence[Array]) -> int:
        """How long all of them become: the smallest bucket that takes the longest, else as long as that."""
        longest = max(array.shape[self.axis] for array in arrays)
        return next((limit for limit in self.buckets if limit >= longest), longest)

    def join(self, arrays: Sequence[Array]) -> Array:
        """The requests' tensors as one batch. A single one that has its size already is not copied."""
        size = self.size(arrays)
        if len(arrays) == 1 and arrays[0].shape[self.axis] == size:
            return arrays[0]
        shape = [sum(map(len, arrays)), *arrays[0].shape[1:]]
        shape[self.axis] = size
        batch = np.full(shape, _typed(self.value, arrays[0].dtype), arrays[0].dtype)
        start = 0
        for array in arrays:
            self.cut(batch[start : start + len(array)], array.shape[self.axis])[...] = array
            start += len(array)
        return batch

    def cut(self, array: Array, size: int) -> Array:
        """The beginning of an array along the axis, as a view."""
        index = (*[slice(None)] * self.axis, slice(size))
        return array[index]


def paddings(model: ModelSpec) -> dict[str, Padding]:
    """What the model's parameters say, by input; they have been checked when the configuration was read."""
    return dict(_paddings(model))


def _paddings(model: ModelSpec) -> Iterator[tuple[str, Padding]]:
    given = model.config.get("parameters", {})
    for spec in model.inputs:
        if _VALUE + spec.name in given or _BUCKETS + spec.name in given:
            buckets = [int(word) for word in model.parameter(_BUCKETS + spec.name).split(",") if word.strip()]
            axis = 1 + spec.dims.index(-1)
            yield spec.name, Padding(axis, tuple(sorted(buckets)), model.parameter(_VALUE + spec.name))


def _typed(text: str, dtype: np.dtype[Any]) -> Any:
    if dtype.kind == "O":
        return text
    if dtype.kind == "f":
        return float(text or 0)
    return int(text or 0)
