"""Shows the shapes that a model sees when its configuration reshapes."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """PRODUCT of SQUARE and SCALAR; SHAPE is what the model saw of SQUARE, per batch element."""

    def execute(self, requests):
        """One response for each request."""
        return [self.respond(request) for request in requests]

    def respond(self, request):
        """A product of the model's own shape."""
        square, scalar = (pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in ("SQUARE", "SCALAR"))
        shape = np.tile(np.array(square.shape + scalar.shape, np.int64), (len(square), 1))
        product = square * scalar.reshape(-1, 1, 1)
        return pb_utils.InferenceResponse([pb_utils.Tensor("PRODUCT", product), pb_utils.Tensor("SHAPE", shape)])
