"""For backends that compute on batches: requests' inputs concatenated, one execution, outputs apart again."""

import itertools
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


class Joiner:
    """How requests become one execution: one behind the other, along their first dimension."""

    def join(self, parts: Sequence[Mapping[str, Array]]) -> tuple[dict[str, Array], list[int]]:
        """The model's inputs, and how many items of the batch each request is. Raises BackendError."""
        return concatenate(parts)

    def split(
        self, computed: Sequence[Computed], sizes: Sequence[int], parts: Sequence[Mapping[str, Array]]
    ) -> list[Outcome]:
        """Each request's share of the outputs; `parts` and `sizes` are of `join`. Raises BackendError."""
        return split(computed, sizes)

    def alone(self, run: Run, part: dict[str, Array]) -> Sequence[Computed]:
        """One request to a model that has no batch dimension. Raises BackendError."""
        return run(part)


PLAIN = Joiner()


def execute_together(
    requests: Sequence[Item],
    read: Callable[[TensorRef], Array],
    run: Run,
    execution: Execution,
    joiner: Joiner = PLAIN,
) -> Sequence[Outcome]:
    """One execution for all requests. A request that cannot be read fails alone."""
    outcomes, parts = _read(requests, read)
    if not parts:
        return _complete(outcomes, [])
    batch, sizes = joiner.join(parts)
    execution.inputs_are_ready()
    computed = run(batch)
    execution.outputs_are_computed()
    return _complete(outcomes, joiner.split(computed, sizes, parts))


def execute_apart(
    requests: Sequence[Item],
    read: Callable[[TensorRef], Array],
    run: Run,
    execution: Execution,
    joiner: Joiner = PLAIN,
) -> Sequence[Outcome]:
    """One execution for each request: the model has no batch dimension."""
    outcomes, parts = _read(requests, read)
    execution.inputs_are_ready()
    return _complete(outcomes, [_attempt(run, part, joiner) for part in parts])


def concatenate(parts: Sequence[Mapping[str, Array]]) -> tuple[dict[str, Array], list[int]]:
    """The requests' inputs as one batch, and each request's share of it. A single request is not copied."""
    names = list(parts[0])
    sizes = sizes_of(parts)
    if len(parts) == 1:
        return dict(parts[0]), sizes
    batch = {name: np.concatenate([part[name] for part in parts]) for name in names}
    copies.count("batch", sum(array.nbytes for array in batch.values()))
    return batch, sizes


def sizes_of(parts: Sequence[Mapping[str, Array]]) -> list[int]:
    """How many items each request is. Raises BackendError for requests that do not fit together."""
    for part in parts:
        if part.keys() != parts[0].keys():
            raise BackendError(ErrorCode.INTERNAL, "requests of one batch must have the same inputs")
    first = next(iter(parts[0]), None)
    return [1 if first is None else len(part[first]) for part in parts]


def split(computed: Sequence[Computed], sizes: Sequence[int]) -> list[Outcome]:
    """Each request's share of the outputs, as views. Raises BackendError for an output of another batch size."""
    return respond(computed, [cut(output, sizes) for output in computed], len(sizes))


def cut(output: Computed, sizes: Sequence[int]) -> list[Array]:
    """One output's share for each request along the first dimension, as views. Raises BackendError."""
    total = sum(sizes)
    if output.array.ndim == 0 or len(output.array) != total:
        raise BackendError(
            ErrorCode.INTERNAL,
            f"output '{output.name}' has shape {list(output.array.shape)}, its first dimension must be the batch size "
            f"{total}",
        )
    ends = list(itertools.accumulate(sizes))
    return [output.array[end - size : end] for size, end in zip(sizes, ends, strict=True)]


def respond(computed: Sequence[Computed], shares: Sequence[Sequence[Array]], count: int) -> list[Outcome]:
    """The responses to `count` requests whose shares of each output are these."""
    return [
        _respond([output._replace(array=share[i]) for output, share in zip(computed, shares, strict=True)])
        for i in range(count)
    ]


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


def _attempt(run: Run, part: dict[str, Array], joiner: Joiner) -> Outcome:
    try:
        return _respond(joiner.alone(run, part))
    except BackendError as error:
        return error


def _respond(computed: Sequence[Computed]) -> Response:
    return Response([Output(n, t, array.shape, binary_form(t, array)) for n, t, array in computed], {})
