"""Answers its input, and fails for 13: for statistics."""

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """IN comes back as OUT_IN."""

    def execute(self, requests):
        """One response for each request."""
        return [self.respond(request) for request in requests]

    def respond(self, request):
        """An error for 13."""
        array = pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()
        if array.flat[0] == 13:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError("unlucky"))
        return pb_utils.InferenceResponse([pb_utils.Tensor("OUT_IN", array)])
