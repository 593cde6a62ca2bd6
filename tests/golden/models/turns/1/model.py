"""Tells when it was its turn, among all models of the server that do so."""

import time
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """TURN is how many executions have begun since the last one that takes 100 MILLISECONDS or more."""

    def initialize(self, args):
        """The executions are counted in a file."""
        self.file = Path(args["model_repository"]).parents[1] / "turns"

    def execute(self, requests):
        """One response for each request."""
        return [self.respond(request) for request in requests]

    def respond(self, request):
        """A line in the file for each."""
        milliseconds = int(pb_utils.get_input_tensor_by_name(request, "MILLISECONDS").as_numpy().flat[0])
        with self.file.open("w" if milliseconds >= 100 else "a") as file:
            file.write("another one\n")
        turn = len(self.file.read_text().splitlines())
        time.sleep(milliseconds / 1000)
        return pb_utils.InferenceResponse([pb_utils.Tensor("TURN", np.array([[turn]], np.int32))])
