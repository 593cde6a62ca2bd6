"""Fails in the way that it is told."""

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """WHAT is `raise`, `too many`, `other output`, `no output`, `wrong type`, or `NAME message` of a TritonError."""

    def execute(self, requests):
        """Return or raise what the first request says."""
        text = pb_utils.get_input_tensor_by_name(requests[0], "WHAT").as_numpy()[0].decode()
        if text == "raise":
            raise ValueError("boom")
        if text == "too many":
            return [pb_utils.InferenceResponse([]), pb_utils.InferenceResponse([])]
        return [self.respond(text, request) for request in requests]

    def respond(self, text, request):
        """One response."""
        data = pb_utils.get_input_tensor_by_name(request, "WHAT").as_numpy()
        if text == "other output":
            return pb_utils.InferenceResponse([pb_utils.Tensor("OTHER", data)])
        if text == "no output":
            return pb_utils.InferenceResponse([])
        if text == "with output":
            return pb_utils.InferenceResponse([pb_utils.Tensor("OUT", data)], error=pb_utils.TritonError("half done"))
        if text == "fine":
            return pb_utils.InferenceResponse([pb_utils.Tensor("OUT", data)])
        name, _, message = text.partition(" ")
        if name == "PLAIN":
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(message))
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, getattr(pb_utils.TritonError, name)))
