"""Takes as long as it is told."""

import time

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """MILLISECONDS comes back as SLEPT, so much later."""

    def execute(self, requests):
        """One response for each request, all after the longest time."""
        arrays = [pb_utils.get_input_tensor_by_name(request, "MILLISECONDS").as_numpy() for request in requests]
        time.sleep(max(float(array.max()) for array in arrays) / 1000)
        return [pb_utils.InferenceResponse([pb_utils.Tensor("SLEPT", array)]) for array in arrays]
