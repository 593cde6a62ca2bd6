"""Calls a model several times at once."""

import asyncio

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """OUT is the sum of what doubler makes of each number; errors count as -1."""

    async def execute(self, requests):
        """One response for each request."""
        return [await self.respond(request) for request in requests]

    async def respond(self, request):
        """All calls are under way together."""
        numbers = pb_utils.get_input_tensor_by_name(request, "NUMBERS").as_numpy()
        answers = await asyncio.gather(*[self.call(number) for number in numbers])
        return pb_utils.InferenceResponse([pb_utils.Tensor("OUT", np.array([sum(answers)], np.int32))])

    async def call(self, number):
        """What doubler makes of a number."""
        call = pb_utils.InferenceRequest(
            model_name="doubler",
            requested_output_names=["OUT"],
            inputs=[pb_utils.Tensor("NUMBERS", np.array([number], np.int32))],
        )
        response = await call.async_exec()
        if response.has_error():
            return -1
        return int(pb_utils.get_output_tensor_by_name(response, "OUT").as_numpy()[0])
