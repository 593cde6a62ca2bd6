"""Implicit state: tensors that a model gives back with one request of a sequence and receives with the next.

They stay in this process, by the slot that the sequence has here.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from broker.messages import ErrorCode, Item
from shm.datatypes import element_count, expected_byte_size
from shm.ref import TensorRef
from workers.errors import BackendError
from workers.model import ModelSpec, TensorSpec
from workers.outcome import Response

START = 1
"""The bit of `Item.flags`."""


class _State(NamedTuple):
    """One state: the output that becomes the next request's input, and what that is at first."""

    output: str
    datatype: str
    is_hidden: bool  # the configuration does not list the output: clients do not see it
    initial: TensorRef


class States:
    """The states of all sequences at this instance."""

    def __init__(self, model: ModelSpec) -> None:
        """Reads the files of initial states. Raises BackendError."""
        visible = {spec.name for spec in model.outputs}
        forms = model.config["sequence_batching"]["state"]
        pairs = zip(model.states, forms, strict=True)
        self._states = [
            _State(after.name, after.datatype, after.name not in visible, _initial(model, before, form))
            for (before, after), form in pairs
        ]
        self._initial = tuple(state.initial for state in self._states)
        self._hidden = {state.output for state in self._states if state.is_hidden}
        self._kept: dict[int, tuple[TensorRef, ...]] = {}

    def fill(self, items: Sequence[Item], slots: Sequence[int]) -> tuple[Item, ...]:
        """The requests with their states among their inputs."""
        return tuple(
            item._replace(inputs=(*item.inputs, *self._current(item, slot)))
            for item, slot in zip(items, slots, strict=True)
        )

    def _current(self, item: Item, slot: int) -> tuple[TensorRef, ...]:
        if slot < 0:
            return self._initial
        if item.flags & START or slot not in self._kept:
            self._kept[slot] = self._initial
        return self._kept[slot]

    def keep(self, slots: Sequence[int], outcomes: Sequence[Any]) -> list[Any]:
        """Remember the states that came out; the outcomes without those that clients do not see."""
        return [self.take(slot, outcome) for slot, outcome in zip(slots, outcomes, strict=True)]

    def take(self, slot: int, outcome: Any) -> Any:
        """The same for one response, be it returned or sent by the model itself.

        A request that fails, or does not say, leaves its sequence's states as they were. Slot -1 has none.
        """
        if slot < 0 or not isinstance(outcome, Response):
            return outcome
        try:
            self._kept[slot] = tuple(
                self._taken(state, ref, outcome) for state, ref in zip(self._states, self._kept[slot], strict=True)
            )
        except BackendError as error:
            return error
        return outcome._replace(outputs=[output for output in outcome.outputs if output.name not in self._hidden])

    def _taken(self, state: _State, before: TensorRef, response: Response) -> TensorRef:
        """A state as the response has it, or as it was. Raises BackendError."""
        output = next((output for output in response.outputs if output.name == state.output), None)
        if output is None:
            return before
        if output.datatype != state.datatype:
            raise BackendError(
                ErrorCode.INVALID_ARG,
                f"state '{state.output}' has datatype {output.datatype}, the configuration says {state.datatype}",
            )
        data = bytes(output.data)
        return TensorRef(before.name, state.datatype, output.shape, len(data), data)


def _initial(model: ModelSpec, spec: TensorSpec, form: dict[str, Any]) -> TensorRef:
    """What a state is when a sequence starts: zeros, or what a file holds. Raises BackendError."""
    given = form["initial_state"][0] if form["initial_state"] else {}
    dims = tuple(int(dim) for dim in given["dims"]) if given else tuple(max(1, dim) for dim in spec.dims)
    shape = (1, *dims) if model.max_batch_size else dims
    size = expected_byte_size(spec.datatype, dims)
    data = bytes(4 * element_count(dims) if size is None else size)  # a string of no length has 4 bytes
    if given.get("data_file"):
        data = _read(model.directory / "initial_state", given["data_file"], size)
    return TensorRef(spec.name, spec.datatype, shape, len(data), data)


def _read(directory: Path, name: str, size: int | None) -> bytes:
    """The file's first `size` bytes, all of it for strings."""
    path = (directory / name).resolve()
    if not path.is_relative_to(directory.resolve()):
        raise BackendError(ErrorCode.INVALID_ARG, f"initial_state file '{name}' is outside of {directory}")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BackendError(
            ErrorCode.INVALID_ARG, f"initial_state file '{path}' cannot be read: {error.strerror}"
        ) from None
    if size is not None and len(data) < size:
        raise BackendError(
            ErrorCode.INVALID_ARG,
            f"initial_state setting expects {size} bytes, but the data provided from {name} only has {len(data)} "
            "bytes.",
        )
    return data[:size]


def create(model: ModelSpec, max_batch_size: int) -> States | None:
    """The states of a model that has any; `max_batch_size` is what the model itself may have completed.

    Raises BackendError.
    """
    return States(replace(model, max_batch_size=max_batch_size)) if model.states else None
