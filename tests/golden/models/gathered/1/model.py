"""Tells how many requests were executed together; a negative number is a time to take, in milliseconds."""

import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """TOGETHER is the number of requests in the batch, HEAD the first number of the request."""

    def execute(self, requests):
        """One response for each request."""
        heads = [pb_utils.get_input_tensor_by_name(request, "NUMBERS").as_numpy().flat[0] for request in requests]
        time.sleep(max(0, -min(heads)) / 1000)
        return [self.respond(head, len(requests)) for head in heads]

    def respond(self, head, together):
        """What a request is told."""
        values = {"HEAD": head, "TOGETHER": together}
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor(name, np.array([[value]], np.int32)) for name, value in values.items()]
        )
