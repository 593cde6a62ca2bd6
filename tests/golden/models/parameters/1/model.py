"""Tells what a model sees of a request."""

import json

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """SEEN is a JSON object with what the request says; its members are sorted when SET says so."""

    def execute(self, requests):
        """One response for each request."""
        return [self.respond(request) for request in requests]

    def respond(self, request):
        """Parameters in the order in which they arrived."""
        seen = {
            "parameters": json.loads(request.parameters()),
            "id": request.request_id(),
            "correlation_id": request.correlation_id(),
            "flags": request.flags(),
            "timeout": request.timeout(),
            "outputs": sorted(request.requested_output_names()),
        }
        is_sorted = pb_utils.get_input_tensor_by_name(request, "SET").as_numpy()[0] == b"sorted"
        tensor = pb_utils.Tensor("SEEN", np.array([json.dumps(seen, sort_keys=is_sorted).encode()], object))
        return pb_utils.InferenceResponse([tensor])
