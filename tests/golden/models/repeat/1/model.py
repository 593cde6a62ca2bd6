"""A decoupled model: as many responses as its input has values."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """HOW is how it ends: `apart` (the default), `with data`, `error` (the last response is one), `raise`."""

    def execute(self, requests):
        """Responses go through the sender of their request."""
        for request in requests:
            self.respond(request)

    def respond(self, request):
        """One response for each value, then the end."""
        values = pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()
        how = pb_utils.get_input_tensor_by_name(request, "HOW")
        how = "apart" if how is None else how.as_numpy()[0].decode()
        if how == "raise":
            raise ValueError("boom")
        sender = request.get_response_sender()
        final = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
        for number, value in enumerate(values, 1):
            response = pb_utils.InferenceResponse([pb_utils.Tensor("OUT", np.array([value], np.int32))])
            is_last = how == "with data" and number == len(values)
            sender.send(response, final if is_last else 0)
        if how == "error":
            sender.send(pb_utils.InferenceResponse(error=pb_utils.TritonError("that was enough")))
        if how != "with data" or not len(values):
            sender.send(flags=final)
