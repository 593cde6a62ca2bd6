"""Answers each input that is there under the name of its output."""

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Input X comes back as output OUT_X."""

    def execute(self, requests):
        """One response for each request."""
        return [
            pb_utils.InferenceResponse(
                [pb_utils.Tensor("OUT_" + tensor.name(), tensor.as_numpy()) for tensor in request.inputs()]
            )
            for request in requests
        ]
