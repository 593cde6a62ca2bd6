"""For backends that compute on batches: requests' inputs concatenated, one execution, outputs apart again."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from broker.messages import ErrorCode, Item
from shm import copies
from shm.ref import TensorRef
from shm.tensor import binary_form
from workers.backend import Execution
from workers.errors import BackendError
from workers.outcome import Outcome, Output, Response

Array: TypeAlias = np.ndarray[Any, Any]


class Computed(NamedTuple):
    """One output of an execution; a BF16 array holds bits."""

    name: str
    datatype: str
    array: Array


Run: TypeAlias = Callable[[dict[str, Array]], Sequence[Computed]]
"""Executes a model once: inputs by name to outputs. Raises BackendError."""


def execute_together(
    requests: Sequence[Item], read: Callable[[TensorRef], Array], run: Run, execution: Execution
) -> Sequence[Outcome]:
    """One execution for all requests, along their first dimension. A request that cannot be read fails alone."""
    outcomes, parts = _read(requests, read)
    if not parts:
        return _complete(outcomes, [])
    batch, sizes = concatenate(parts)
    execution.inputs_are_ready()
    computed = run(batch)
    execution.outputs_are_computed()
    return _complete(outcomes, split(computed, sizes))


def execute_apart(
    requests: Sequence[Item], read: Callable[[TensorRef], Array], run: Run, execution: Execution
) -> Sequence[Outcome]:
    """One execution for each request: the model has no batch dimension."""
    outcomes, parts = _read(requests, read)
    execution.inputs_are_ready()
    return _complete(outcomes, [_attempt(run, part) for part in parts])


def concatenate(parts: Sequence[Mapping[str, Array]]) -> tuple[dict[str, Array], list[int]]:
    """The requests' inputs as one batch, and each request's share of it. A single request is not copied."""
    names = list(parts[0])
    for part in parts:
        if part.keys() != parts[0].keys():
            raise BackendError(ErrorCode.INTERNAL, "requests of one batch must have the same inputs")
    sizes = [len(part[names[0]]) if names else 1 for part in parts]
    if len(parts) == 1:
        return dict(parts[0]), sizes
    batch = {name: np.concatenate([part[name] for part in parts]) for name in names}
    copies.count("batch", sum(array.nbytes for array in batch.values()))
    return batch, sizes


def split(computed: Sequence[Computed], sizes: Sequence[int]) -> list[Outcome]:
    """Each request's share of the outputs, as views. Raises BackendError for an output of another batch size."""
    total = sum(sizes)
    for name, _, array in computed:
        if array.ndim == 0 or len(array) != total:
            raise BackendError(
                ErrorCode.INTERNAL,
                f"output '{name}' has shape {list(array.shape)}, its first dimension must be the batch size {total}",
            )
    outcomes: list[Outcome] = []
    start = 0
    for size in sizes:
        share = [c._replace(array=c.array[start : start + size]) for c in computed]
        outcomes.append(_respond(share))
        start += size
    return outcomes


def _read(
    requests: Sequence[Item], read: Callable[[TensorRef], Array]
) -> tuple[list[BackendError | None], list[dict[str, Array]]]:
    """Per request the error that it has already, and the inputs of those that have none."""
    errors: list[BackendError | None] = []
    parts: list[dict[str, Array]] = []
    for request in requests:
        try:
            parts.append({ref.name: read(ref) for ref in request.inputs})
            errors.append(None)
        except BackendError as error:
            errors.append(error)
    return errors, parts


def _complete(errors: Sequence[BackendError | None], outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The outcomes of those without an error, put between those with one."""
    remaining = iter(outcomes)
    return [next(remaining) if error is None else error for error in errors]


def _attempt(run: Run, part: dict[str, Array]) -> Outcome:
    try:
        return _respond(run(part))
    except BackendError as error:
        return error


def _respond(computed: Sequence[Computed]) -> Response:
    return Response([Output(n, t, array.shape, binary_form(t, array)) for n, t, array in computed], {})
