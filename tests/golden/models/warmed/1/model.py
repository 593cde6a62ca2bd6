"""Counts its executions."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """EXECUTION is how many requests were executed before, and ROWS how many rows they had together with this one."""

    def initialize(self, args):
        """Nothing was executed yet."""
        self.executions = self.rows = 0

    def execute(self, requests):
        """One response for each request."""
        return [self.respond(request) for request in requests]

    def respond(self, request):
        """An error for 13, as for all that is not cached."""
        array = pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()
        if array.flat[0] == 13:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(f"unlucky at {self.executions}"))
        self.rows += len(array)
        answer = {"EXECUTION": self.executions, "ROWS": self.rows}
        self.executions += 1
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, np.full((len(array), 1), value, np.int32)) for name, value in answer.items()]
        )
