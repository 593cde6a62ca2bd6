"""Sums up what a sequence sends."""

from __future__ import annotations  # Triton completes pb_utils only after it has imported this file

from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """OUTPUT0 is the sum of all INPUT0 of the sequence so far."""

    def initialize(self, args: dict[str, str]) -> None:
        """No sequence yet."""
        self.sums: dict[int, Any] = {}

    def execute(self, requests: list[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        """One response per request."""
        return [self._add(request) for request in requests]

    def _add(self, request: pb_utils.InferenceRequest) -> pb_utils.InferenceResponse:
        start, ready, sequence, given = (
            pb_utils.get_input_tensor_by_name(request, name).as_numpy()
            for name in ("START", "READY", "CORRID", "INPUT0")
        )
        number = int(sequence.flat[0])
        if not ready.flat[0]:
            total = np.zeros_like(given)
        else:
            total = given if start.flat[0] else self.sums[number] + given
            self.sums[number] = total
        return pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT0", total)])
