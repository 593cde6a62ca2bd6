"""SUM is the sum of A and B; OUT has as many ones as COUNT says: inputs and outputs of any size, independently."""

from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One instance."""

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        a, b, count = [pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in ("A", "B", "COUNT")]
        total = np.array([a.sum(dtype=np.float64) + b.sum(dtype=np.float64)])
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor("SUM", total), pb_utils.Tensor("OUT", np.ones(int(count[0]), np.float32))]
        )
