"""Adds up the VALUEs of each sequence, by its correlation id; PID is the worker's. A VALUE of -99 kills the worker."""

import os
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One instance; its sums are all that a sequence needs."""

    def initialize(self, args: dict[str, str]) -> None:
        """No sequences."""
        self._sums: dict[Any, int] = {}

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response for each request, also for rows that are nobody's."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        given = {tensor.name(): tensor.as_numpy().flat[0] for tensor in request.inputs()}
        if not given["READY"]:
            return pb_utils.InferenceResponse([])
        if given["VALUE"] == -99:
            os._exit(3)
        key = given["ID"]
        self._sums[key] = int(given["VALUE"]) + (0 if given["START"] else self._sums[key])
        values = {"SUM": self._sums[key], "PID": os.getpid()}
        if given["END"]:
            del self._sums[key]
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, np.array([[value]], np.int32)) for name, value in values.items()]
        )
