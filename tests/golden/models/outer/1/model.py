"""Calls the model that it is told to call, which may be one like itself."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """OUT is one more than what the first model of PATH makes of NUMBERS, with the rest of PATH.

    `stream MODEL` sums up what a decoupled model sends.
    """

    def initialize(self, args):
        """Its name is in the errors."""
        self.name = args["model_name"]

    def execute(self, requests):
        """One response for each request."""
        return [self.respond(request) for request in requests]

    def respond(self, request):
        """What the called model says, or its error."""
        numbers = pb_utils.get_input_tensor_by_name(request, "NUMBERS").as_numpy()
        model, _, rest = pb_utils.get_input_tensor_by_name(request, "PATH").as_numpy()[0].decode().partition(" ")
        if model == "stream":
            return self.summed(numbers, rest)
        inputs = [pb_utils.Tensor("NUMBERS", numbers)]
        if rest:
            inputs.append(pb_utils.Tensor("PATH", np.array([rest.encode()], np.object_)))
        call = pb_utils.InferenceRequest(model_name=model, requested_output_names=["OUT"], inputs=inputs)
        response = call.exec()
        if response.has_error():
            return self.failure(response.error())
        return self.success(pb_utils.get_output_tensor_by_name(response, "OUT").as_numpy() + 1)

    def summed(self, numbers, model):
        """The responses of a stream: their number and their sum."""
        call = pb_utils.InferenceRequest(
            model_name=model, requested_output_names=["OUT"], inputs=[pb_utils.Tensor("IN", numbers)]
        )
        found = []
        for response in call.exec(decoupled=True):
            if response.has_error():
                return self.failure(response.error())
            if response.output_tensors():
                found.append(int(pb_utils.get_output_tensor_by_name(response, "OUT").as_numpy()[0]))
        return self.success(np.array([len(found), sum(found)], np.int32))

    def success(self, numbers):
        """A response."""
        return pb_utils.InferenceResponse([pb_utils.Tensor("OUT", numbers)])

    def failure(self, error):
        """The error, with our name and its code."""
        text = f"{self.name} was told ({int(error.code())}): {error.message()}"
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(text, error.code()))
