"""Takes VALUE executions for each request, and tells of each its flags and its START."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Iterative sequences."""

    def initialize(self, args):
        """What was seen, by correlation id."""
        self.seen = {}

    def execute(self, requests):
        """One step for each."""
        return [self.step(request) for request in requests]

    def step(self, request):
        """None for a request that is to come again."""
        value, start = (
            pb_utils.get_input_tensor_by_name(request, name).as_numpy().flat[0] for name in ("VALUE", "START")
        )
        if start:
            self.seen[request.correlation_id()] = []
        seen = self.seen[request.correlation_id()]
        seen.append(f"{request.flags()} {start}")
        if len(seen) < value:
            request.set_release_flags(pb_utils.TRITONSERVER_REQUEST_RELEASE_RESCHEDULE)
            return None
        if value == 0:
            raise ValueError("no steps")
        text = np.array([["; ".join(seen).encode()]], np.object_)
        return pb_utils.InferenceResponse([pb_utils.Tensor("SEEN", text)])
