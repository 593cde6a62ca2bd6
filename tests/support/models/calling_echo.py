"""Has the model `echo_21` answer its requests."""

from typing import Any

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One instance."""

    def execute(self, requests: list[Any]) -> list[Any]:
        """Ask."""
        return [self._answer(pb_utils.get_input_tensor_by_name(request, "IN")) for request in requests]

    def _answer(self, given: Any) -> Any:
        question = pb_utils.InferenceRequest(model_name="echo_21", inputs=[given], requested_output_names=["OUT"])
        answer = question.exec()
        if answer.has_error():
            raise pb_utils.TritonModelException(answer.error().message())
        return pb_utils.InferenceResponse(answer.output_tensors())
