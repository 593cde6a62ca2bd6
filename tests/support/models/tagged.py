"""Says which files it was loaded from: TAG of this file, and the number in the file `weights` beside it."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

TAG = 1


class TritonPythonModel:
    """One instance."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the weights, in a moment that is long enough to be caught in."""
        weights = Path(args["model_repository"]) / args["model_version"] / "weights"
        first = weights.read_text()
        time.sleep(0.05)
        assert weights.read_text() == first, "the files have changed while they were loaded"
        self.weights = int(first)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer IN, the tag and the weights."""
        return [
            pb_utils.InferenceResponse(
                [
                    pb_utils.Tensor("OUT", pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()),
                    pb_utils.Tensor("FILES", np.array([TAG, self.weights], np.int64)),
                ]
            )
            for request in requests
        ]
