"""Adds up the values of a sequence."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """SUM of all VALUEs of a sequence so far."""

    def initialize(self, args):
        """Sums by correlation id."""
        self.sums = {}

    def execute(self, requests):
        """One response for each request."""
        return [self.respond(request) for request in requests]

    def respond(self, request):
        """The sum so far; a sequence that begins starts at 0."""
        value, start = (
            pb_utils.get_input_tensor_by_name(request, name).as_numpy().flat[0] for name in ("VALUE", "START")
        )
        key = pb_utils.get_input_tensor_by_name(request, "CORRID").as_numpy().flat[0].item()
        self.sums[key] = value + (0 if start else self.sums[key])
        return pb_utils.InferenceResponse([pb_utils.Tensor("SUM", np.array([[self.sums[key]]], np.int32))])
