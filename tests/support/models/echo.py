"""Answers each input NAME as the output of the same name with `IN` for `OUT`."""

from typing import Any

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One instance."""

    def execute(self, requests: list[Any]) -> list[Any]:
        """Echo every input."""
        return [
            pb_utils.InferenceResponse(
                [pb_utils.Tensor(t.name().replace("IN", "OUT"), t.as_numpy()) for t in request.inputs()]
            )
            for request in requests
        ]
