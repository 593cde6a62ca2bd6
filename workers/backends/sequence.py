"""The sequence backend: every request of a sequence is answered with the sum of its inputs so far."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from broker.messages import NOBODY, ErrorCode, Item
from shm.tensor import binary_form
from workers.backend import Execution, Host, Interface
from workers.errors import BackendError
from workers.model import ModelSpec
from workers.outcome import Outcome, Output, Response

START, END = 1, 2


class SequenceBackend:
    """For clients of sequences: one input and one output of the same type of number; what else is declared as a control
    tensor or a second input is not looked at."""

    def __init__(self, model: ModelSpec, host: Host) -> None:
        """No sequence has begun."""
        self._model = model
        self._inputs = host.inputs
        self._sums: dict[int | str, np.ndarray[Any, Any]] = {}  # by correlation id

    def load(self) -> Interface:
        """See what is added up."""
        model = self._model
        first = [specs[0].datatype for specs in (model.inputs, model.outputs) if specs]
        if len(first) < 2 or len({*first}) > 1 or first[0] in {"BYTES", "BF16"}:
            raise BackendError(
                ErrorCode.INVALID_ARG,
                f"unable to load model '{model.name}', the backend 'sequence' needs an input and an output of the same "
                "type of number",
            )
        return Interface()

    def execute(self, requests: Sequence[Item], execution: Execution) -> Sequence[Outcome]:
        """Add up, in the order of the requests."""
        return [self._add(request) for request in requests]

    def unload(self) -> None:
        """Nothing to give back."""

    def _add(self, request: Item) -> Outcome:
        source, target = self._model.inputs[0].name, self._model.outputs[0]
        try:
            (value,) = [self._inputs.private(ref) for ref in request.inputs if ref.name == source]
        except BackendError as error:
            return error
        if request.reader != NOBODY:  # else the row is of a slot that has no sequence
            if not request.flags & START and request.correlation_id in self._sums:
                value = value + self._sums[request.correlation_id]
            self._sums[request.correlation_id] = value
            if request.flags & END:
                del self._sums[request.correlation_id]
        return Response([Output(target.name, target.datatype, value.shape, binary_form(target.datatype, value))], {})
