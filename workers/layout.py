"""How the requests of a batch become one execution where they are not simply put one behind the other."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np

from broker.messages import ErrorCode
from shm import copies
from workers import ragged
from workers.batching import PLAIN, Array, Computed, Joiner, Run, cut, respond, sizes_of
from workers.errors import BackendError
from workers.model import ModelSpec
from workers.outcome import Outcome
from workers.padding import paddings

Part: TypeAlias = Mapping[str, Array]
"""The inputs of one request by name."""


def joiner(model: ModelSpec) -> Joiner:
    """What the model's configuration asks for."""
    is_ragged = any(spec.is_ragged for spec in model.inputs) or model.batch_inputs or model.batch_outputs
    return Layout(model) if is_ragged or paddings(model) else PLAIN


class Layout(Joiner):
    """Ragged inputs, the inputs and outputs of batches, padding."""

    def __init__(self, model: ModelSpec) -> None:
        """What the configuration says of them."""
        self._model = model
        self._ragged = {spec.name for spec in model.inputs if spec.is_ragged}
        self._padded = paddings(model)
        self._output_dims = {spec.name: (-1, *spec.dims) for spec in model.outputs}

    def join(self, parts: Sequence[Part]) -> tuple[dict[str, Array], list[int]]:
        """See `Joiner`."""
        sizes = sizes_of(parts)
        batch = {name: self._join(name, [part[name] for part in parts]) for name in parts[0]}
        if len(parts) > 1:
            copies.count("batch", sum(array.nbytes for array in batch.values()))
        for made in self._model.batch_inputs:
            shapes = _shapes(parts, made.source)
            array = ragged.describe(made.kind, made.datatype, shapes, self._model.max_batch_size > 0)
            batch |= dict.fromkeys(made.names, array)
        return batch, sizes

    def split(self, computed: Sequence[Computed], sizes: Sequence[int], parts: Sequence[Part]) -> list[Outcome]:
        """See `Joiner`."""
        shares = [self._scatter(c, parts) or self._unpad(c, cut(c, sizes), parts) for c in computed]
        return respond(computed, shares, len(parts))

    def alone(self, run: Run, part: dict[str, Array]) -> Sequence[Computed]:
        """See `Joiner`."""
        computed = run(self.join([part])[0])
        return [c._replace(array=(self._scatter(c, [part]) or [c.array])[0]) for c in computed]

    def _join(self, name: str, arrays: Sequence[Array]) -> Array:
        if name in self._padded:
            return self._padded[name].join(arrays)
        if name in self._ragged:
            arrays = [array.reshape(-1) for array in arrays]
        return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)

    def _scatter(self, output: Computed, parts: Sequence[Part]) -> list[Array] | None:
        """Each request's part of an output that is cut by the shapes of an input; None for others."""
        made = self._model.batch_outputs.get(output.name)
        if made is None:
            return None
        return ragged.scatter(output.name, output.array, made.dims, _shapes(parts, made.source))

    def _unpad(self, output: Computed, shares: list[Array], parts: Sequence[Part]) -> list[Array]:
        """The shares of an output, as long as the first padded input that is as long as it in the same dimension."""
        dims = self._output_dims.get(output.name)
        for name, padding in self._padded.items():
            axis, arrays = padding.axis, [part[name] for part in parts if name in part]
            is_like = axis < output.array.ndim and (dims is None or dims[axis : axis + 1] == (-1,))
            if arrays and is_like and output.array.shape[axis] == padding.size(arrays):
                return [padding.cut(s, array.shape[axis]) for s, array in zip(shares, arrays, strict=True)]
        return shares


def _shapes(parts: Sequence[Part], source: str) -> list[tuple[int, ...]]:
    """The shapes of an input. Raises BackendError."""
    if source not in parts[0]:
        raise BackendError(ErrorCode.INVALID_ARG, f"input '{source}' is needed to describe the batch")
    return [part[source].shape for part in parts]
