"""The identity: OUTPUT0 is INPUT0."""

from __future__ import annotations  # Triton completes pb_utils only after it has imported this file

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Answers each request of a batch with its own input."""

    def execute(self, requests: list[pb_utils.InferenceRequest]) -> list[pb_utils.InferenceResponse]:
        """One response per request."""
        responses = []
        for request in requests:
            tensor = pb_utils.get_input_tensor_by_name(request, "INPUT0")
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT0", tensor.as_numpy())]))
        return responses
