"""Says IN[0] at every level of the log, and answers it as OUT."""

from typing import Any

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One instance."""

    def execute(self, requests: list[Any]) -> list[Any]:
        """Talk."""
        responses = []
        for request in requests:
            array = pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()
            log = pb_utils.Logger
            for level, say in (("verbose", log.log_verbose), ("info", log.log_info), ("warning", log.log_warn)):
                say(f"{level} {array[0]:.0f}")
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("OUT", array)]))
        return responses
