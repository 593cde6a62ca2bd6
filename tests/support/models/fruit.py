"""Answers with the version of the package `tidepool_fruit` that it imports, and where its Python lies."""

import sys

import numpy as np
import tidepool_fruit
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        text = f"{tidepool_fruit.VERSION} {sys.prefix}"
        output = pb_utils.Tensor("OUT", np.array([text.encode()], dtype=np.object_))
        return [pb_utils.InferenceResponse([output]) for _ in requests]
