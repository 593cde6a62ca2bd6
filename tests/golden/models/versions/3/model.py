"""Answers its version."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """VERSION of whatever IN is."""

    def initialize(self, args):
        """The version comes with the arguments."""
        self.version = int(args["model_version"])

    def execute(self, requests):
        """One response for each request."""
        output = np.array([self.version], np.int32)
        return [pb_utils.InferenceResponse([pb_utils.Tensor("VERSION", output)]) for _ in requests]
