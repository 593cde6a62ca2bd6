"""Doubles numbers, and has errors for some."""

import time

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """OUT is twice NUMBERS, a moment later: what sends several requests has ended before the last answer."""

    def execute(self, requests):
        """One response for each request."""
        time.sleep(0.03)
        return [self.respond(request) for request in requests]

    def respond(self, request):
        """An error for 13, another one for 14."""
        numbers = pb_utils.get_input_tensor_by_name(request, "NUMBERS").as_numpy()
        if numbers[0] == 13:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError("unlucky"))
        if numbers[0] == 14:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError("later", pb_utils.TritonError.UNAVAILABLE))
        return pb_utils.InferenceResponse([pb_utils.Tensor("OUT", numbers * 2)])
