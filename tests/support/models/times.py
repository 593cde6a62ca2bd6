"""Answers IN multiplied by FACTOR, for which a test writes another number; dies when the first number is negative."""

import os
from typing import Any

import triton_python_backend_utils as pb_utils

FACTOR = 1


class TritonPythonModel:
    """One instance."""

    def execute(self, requests: list[Any]) -> list[Any]:
        """Multiply."""
        inputs = [pb_utils.get_input_tensor_by_name(request, "IN").as_numpy() for request in requests]
        if any(array[0] < 0 for array in inputs):
            os._exit(3)
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", array * FACTOR)]) for array in inputs]
