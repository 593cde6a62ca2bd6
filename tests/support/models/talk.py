"""Sends as many responses as IN says (the number in each OUT), prints a line for each, and stops at a breakpoint first
when IN is negative; a thousand asks another model."""

from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One instance."""

    def execute(self, requests: list[Any]) -> None:
        """Talk."""
        for request in requests:
            sender = request.get_response_sender()
            count = int(request.inputs()[0].as_numpy()[0])
            if count < 0:
                breakpoint()
            if count == 1000:
                called = pb_utils.InferenceRequest(model_name="other", inputs=[], requested_output_names=["OUT"])
                raise ValueError(called.exec().error().message())
            for number in range(abs(count)):
                print(f"number {number}")
                output = pb_utils.Tensor("OUT", np.array([number], np.int32))
                sender.send(pb_utils.InferenceResponse([output]))
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
