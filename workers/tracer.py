"""Tensors as text, for the traces of requests whose trace level asks for them."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from broker.messages import BACKEND_OUTPUT, QUEUE_INPUT, TENSORS, Item, Message, TensorsTraced
from shm.arena import Buffer
from shm.tensor import as_array
from workers.errors import BackendError
from workers.inputs import Inputs
from workers.outcome import Again, Outcome, Response

MAX_ELEMENTS = 10_000
"""Of one tensor; what a trace leaves out is shown as `...`."""


class Tracer:
    """Tells the broker the tensors of the requests that ask for it; any thread may use it."""

    def __init__(self, inputs: Inputs, send: Callable[[Message], None]) -> None:
        """`inputs` reads tensors where they lie."""
        self._inputs = inputs
        self._send = send

    def inputs(self, attempt: int, items: Sequence[Item]) -> None:
        """The inputs of a batch, before its execution."""
        for index, item in enumerate(items):
            if item.trace == TENSORS:
                tensors = tuple([(r.name, self._read(r), _shape(r.shape), r.datatype) for r in item.inputs])
                self._send(TensorsTraced(attempt, index, QUEUE_INPUT, tensors))

    def outputs(self, attempt: int, items: Sequence[Item], outcomes: Sequence[Outcome | Again | None]) -> None:
        """What an execution has returned."""
        for index, (item, outcome) in enumerate(zip(items, outcomes, strict=True)):
            if item.trace:
                self.output(attempt, index, item, outcome)

    def output(self, attempt: int, index: int, item: Item, outcome: Outcome | Again | None) -> None:
        """One response."""
        if item.trace == TENSORS and isinstance(outcome, Response):
            tensors = tuple(
                [
                    (name, text_of(datatype, shape, data), _shape(shape), datatype)
                    for name, datatype, shape, data in outcome.outputs
                    if not item.outputs or name in item.outputs
                ]
            )
            self._send(TensorsTraced(attempt, index, BACKEND_OUTPUT, tensors))

    def _read(self, ref: Any) -> str:
        try:
            return text_of(ref.datatype, ref.shape, self._inputs.raw(ref))
        except BackendError as error:
            return str(error)


def text_of(datatype: str, shape: Sequence[int], data: Buffer) -> str:
    """The elements of a tensor: numbers with six digits as in Triton, BYTES in quotes."""
    try:
        array = as_array(datatype, shape, data)
    except ValueError as error:
        return str(error)
    if datatype == "BF16":
        array = (array.astype(np.uint32) << 16).view(np.float32)
    form = _FORMS.get(array.dtype.kind, str)
    texts = [form(element) for element in itertools.islice(array.flat, MAX_ELEMENTS)]
    return ",".join(texts if array.size <= MAX_ELEMENTS else [*texts, "..."])


def _shape(shape: Sequence[int]) -> str:
    return ",".join(map(str, shape))


_FORMS: dict[str, Callable[[Any], str]] = {
    "b": lambda element: str(int(element)),
    "f": lambda element: f"{element:g}",
    "O": lambda element: f'"{element.decode(errors="replace")}"',
}
"""How elements are written, by the kind of their numpy dtype."""
