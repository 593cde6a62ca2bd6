"""Answers IN times 2 as OUT, and as COUNT how often it has answered; 13 is an error."""

from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One instance."""

    def initialize(self, _args: dict[str, str]) -> None:
        """Nothing answered."""
        self._count = 0

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        given = pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()
        if given.flat[0] == 13:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError("unlucky"))
        self._count += 1
        outputs = [pb_utils.Tensor("OUT", given * 2), pb_utils.Tensor("COUNT", np.array([self._count], np.int32))]
        wanted = [output for output in outputs if output.name() in request.requested_output_names()]
        return pb_utils.InferenceResponse(wanted, parameters={"count": self._count})
