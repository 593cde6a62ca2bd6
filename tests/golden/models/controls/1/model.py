"""Tells what it sees of sequences: all rows of the batch, but for the inputs of those that are nobody's."""

import numpy as np
import triton_python_backend_utils as pb_utils

NAMES = ("START", "END", "READY", "CORRID")


class TritonPythonModel:
    """SEEN is the same for all rows."""

    def execute(self, requests):
        """One response for each row."""
        seen = "; ".join(self.describe(request) for request in requests)
        tensor = pb_utils.Tensor("SEEN", np.array([[seen.encode()]], np.object_))
        return [pb_utils.InferenceResponse([tensor]) for _ in requests]

    def describe(self, request):
        """The row's id and flags, and its controls with their shapes."""
        found = [pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in NAMES]
        values = " ".join(f"{a.dtype}{list(a.shape)}={a.flat[0].item()}" for a in found)
        return f"'{request.request_id()}' {request.correlation_id()!r} {request.flags()} {values}"
