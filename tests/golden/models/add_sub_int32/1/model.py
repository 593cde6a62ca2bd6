"""Sum and difference of two tensors."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """SUM and DIFFERENCE of A and B."""

    def execute(self, requests):
        """One response for each request."""
        return [self.respond(request) for request in requests]

    def respond(self, request):
        """Both outputs, in their order in the configuration."""
        a, b = (pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in ("A", "B"))
        with np.errstate(all="ignore"):
            outputs = [pb_utils.Tensor("SUM", a + b), pb_utils.Tensor("DIFFERENCE", a - b)]
        return pb_utils.InferenceResponse(outputs)
