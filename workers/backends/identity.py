"""The identity backend: every output is the input at its place in the configuration, byte for byte."""

import time
from collections.abc import Sequence

from broker.messages import ErrorCode, Item
from workers.backend import Execution, Host, Interface
from workers.errors import BackendError
from workers.model import ModelSpec
from workers.outcome import Outcome, Output, Response


class IdentityBackend:
    """For benchmarks and tests. Parameters: `creation_delay_sec`, `execute_delay_ms`, and
    `instance_wise_delay_multiplier`, which multiplies the delay by the instance's number in its group."""

    def __init__(self, model: ModelSpec, host: Host) -> None:
        """Nothing to log."""
        self._model = model
        self._inputs = host.inputs
        self._names: dict[str, str] = {}
        self._delay = 0.0

    def load(self) -> Interface:
        """Pair inputs and outputs."""
        model = self._model
        if not model.inputs or len(model.inputs) != len(model.outputs):
            raise BackendError(ErrorCode.INVALID_ARG, "model configuration must have equal input/output pairs")
        for source, target in zip(model.inputs, model.outputs, strict=True):
            if source.datatype != target.datatype:
                raise BackendError(
                    ErrorCode.INVALID_ARG,
                    f"expected input and output datatype to match, got {source.data_type} and {target.data_type}",
                )
            self._names[source.name] = target.name
        multiplier = model.number("instance_wise_delay_multiplier")
        number = model.instance.rpartition("_")[2]
        factor = max(1.0, multiplier * int(number)) if number.isdigit() else 1.0
        self._delay = model.number("execute_delay_ms") / 1000 * factor
        time.sleep(model.number("creation_delay_sec"))
        return Interface()

    def execute(self, requests: Sequence[Item], execution: Execution) -> Sequence[Outcome]:
        """Pass the bytes on."""
        if self._delay:
            time.sleep(self._delay)
        return [self._respond(request) for request in requests]

    def unload(self) -> None:
        """Nothing to give back."""

    def _respond(self, request: Item) -> Outcome:
        names, raw = self._names, self._inputs.raw
        try:
            given = [r for r in request.inputs if r.name in names]  # what else there is tells of sequences
            return Response([Output(names[r.name], r.datatype, r.shape, raw(r)) for r in given], {})
        except BackendError as error:
            return error
