"""Adds VALUE to the state TOTAL that the server keeps: SUM and NEXT are the sum."""

from typing import Any

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """An instance that keeps nothing itself."""

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response for each request."""
        responses = []
        for request in requests:
            value, total = (pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in ("VALUE", "TOTAL"))
            outputs = [pb_utils.Tensor(name, value + total) for name in ("SUM", "NEXT")]
            responses.append(pb_utils.InferenceResponse(outputs))
        return responses
