"""Has the model `cached` answer its requests."""

from typing import Any

import triton_python_backend_utils as pb_utils

OUTPUTS = ("OUT", "COUNT")


class TritonPythonModel:
    """One instance."""

    def execute(self, requests: list[Any]) -> list[Any]:
        """Ask."""
        return [self._answer(request.inputs()[0].as_numpy()) for request in requests]

    def _answer(self, given: Any) -> Any:
        question = pb_utils.InferenceRequest(
            model_name="cached", inputs=[pb_utils.Tensor("IN", given)], requested_output_names=list(OUTPUTS)
        )
        response = question.exec()
        if response.has_error():
            raise pb_utils.TritonModelException(response.error().message())
        found = [(name, pb_utils.get_output_tensor_by_name(response, name).as_numpy()) for name in OUTPUTS]
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, array) for name, array in found])
