"""Sends ORDER[0] responses OUT of ORDER[1] numbers each, all of them the response's own number.

ORDER[2] says how it ends: 0 with an empty final response, 1 with the last response, 2 with an error.

Each request has a thread. In the directory that the parameter `directory` names, the file ID holds a byte for each
response that was sent, and ID.cancelled tells that the client has gone.
"""

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


class TritonPythonModel:
    """One instance."""

    def initialize(self, args: dict[str, str]) -> None:
        """Find the directory."""
        parameters = json.loads(args["model_config"])["parameters"]
        self._records = Path(parameters["directory"]["string_value"])

    def execute(self, requests: list[Any]) -> None:
        """Begin to answer."""
        for request in requests:
            order = pb_utils.get_input_tensor_by_name(request, "ORDER").as_numpy().tolist()
            told = (request.request_id(), order, request.get_response_sender())
            threading.Thread(target=self._answer, args=told, daemon=True).start()

    def _answer(self, request_id: str, order: list[int], sender: Any) -> None:
        count, size, end = order
        with (self._records / request_id).open("ab", buffering=0) as record:
            for number in range(count):
                if sender.is_cancelled():
                    break
                output = pb_utils.Tensor("OUT", np.full(size, number, np.int32))
                is_last = number == count - 1 and end == 1
                sender.send(pb_utils.InferenceResponse([output]), FINAL if is_last else 0)
                record.write(b".")
        if sender.is_cancelled():
            (self._records / f"{request_id}.cancelled").touch()
        if end == 2:
            error = pb_utils.TritonError("that was it", pb_utils.TritonError.UNAVAILABLE)
            sender.send(pb_utils.InferenceResponse(error=error), FINAL)
        elif end == 0 or count == 0:
            sender.send(flags=FINAL)
