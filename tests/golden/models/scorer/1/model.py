"""Scores rows of numbers: the place of a network."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """SCORE is the mean length of the words."""

    def execute(self, requests):
        """One response for each request."""
        return [self.respond(request) for request in requests]

    def respond(self, request):
        """The rows of one request."""
        tokens = pb_utils.get_input_tensor_by_name(request, "TOKENS").as_numpy()
        used = pb_utils.get_input_tensor_by_name(request, "USED").as_numpy()
        if not used.all():
            text = f"{int((used == 0).sum())} text(s) without a word"
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(text, pb_utils.TritonError.INVALID_ARG))
        score = (tokens.sum(axis=1, keepdims=True) / used).astype(np.float32)
        return pb_utils.InferenceResponse([pb_utils.Tensor("SCORE", score)])
