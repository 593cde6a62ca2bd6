"""Takes COUNT executions for each request: OUT is how many it took, or (decoupled) one response for each."""

import json
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One instance with iterative sequences."""

    def initialize(self, args: dict[str, str]) -> None:
        """No requests."""
        self._steps: dict[Any, int] = {}
        self._is_decoupled = pb_utils.using_decoupled_model_transaction_policy(json.loads(args["model_config"]))

    def execute(self, requests: list[Any]) -> list[Any] | None:
        """One step of each."""
        answers = [self._step(request) for request in requests]
        return None if self._is_decoupled else answers

    def _step(self, request: Any) -> Any:
        given = {tensor.name(): tensor.as_numpy().flat[0] for tensor in request.inputs()}
        key = request.correlation_id()
        step = self._steps[key] = 1 if given["START"] else self._steps[key] + 1
        is_last = step == given["COUNT"]
        response = pb_utils.InferenceResponse([pb_utils.Tensor("OUT", np.array([[step]], np.int32))])
        if not is_last:
            request.set_release_flags(pb_utils.TRITONSERVER_REQUEST_RELEASE_RESCHEDULE)
        if self._is_decoupled:
            flags = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL if is_last else 0
            request.get_response_sender().send(response, flags=flags)
            return None
        return response if is_last else None
