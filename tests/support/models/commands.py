"""A model that does what each request tells it to, and keeps a record of every execution it begins.

IN is INT64 [2]: a command (see `tests.support.repository`) and its argument; OUT is INT64 [2]: the argument and the
worker's process id. The parameter `directory` of the configuration names a directory for records: the file
`executions` gets a line `COMMAND ARGUMENT PID REQUESTS` for each command of a batch of so many requests before it is
carried out; the command WAIT lasts until there is a file `go_ARGUMENT`. The parameter `load` is `die` or `hang`: the
model does that instead of loading as long as there is a file `bad`.
"""

import ctypes
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

ECHO, SEGFAULT, EXIT, WAIT, FAIL, PRINT, SLEEP = range(7)


class TritonPythonModel:
    """One instance."""

    def initialize(self, args: dict[str, str]) -> None:
        """Find the directory of records."""
        parameters = json.loads(args["model_config"])["parameters"]
        self._directory = Path(parameters["directory"]["string_value"])
        load = parameters.get("load", {"string_value": ""})["string_value"]
        if load and (self._directory / "bad").exists():
            self._load_badly(load)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Record every request, carry them out in order, answer them together."""
        orders = [pb_utils.get_input_tensor_by_name(request, "IN").as_numpy() for request in requests]
        with (self._directory / "executions").open("a") as file:
            for command, argument in np.concatenate([order.reshape(-1, 2) for order in orders]).tolist():
                file.write(f"{command} {argument} {os.getpid()} {len(requests)}\n")
        return [self._answer(order) for order in orders]

    def _answer(self, orders: Any) -> Any:
        answer = orders.reshape(-1, 2).copy()
        for command, argument in answer.tolist():
            error = self._carry_out(command, argument)
            if error:
                return pb_utils.InferenceResponse(error=pb_utils.TritonError(error))
        answer[:, 0], answer[:, 1] = answer[:, 1], os.getpid()
        return pb_utils.InferenceResponse([pb_utils.Tensor("OUT", answer.reshape(orders.shape))])

    def _carry_out(self, command: int, argument: int) -> str:
        if command == SEGFAULT:
            ctypes.string_at(0)
        elif command == EXIT:
            os._exit(argument)
        elif command == WAIT:
            while not (self._directory / f"go_{argument}").exists():
                time.sleep(0.01)
        elif command == FAIL:
            return f"told to fail with {argument}"
        elif command == PRINT:
            for _ in range(argument):
                sys.stdout.write("x" * 1023 + "\n")
        elif command == SLEEP:
            time.sleep(argument / 1000)
        return ""

    def _load_badly(self, how: str) -> None:
        print("about to load badly", flush=True)
        if how == "die":
            os.kill(os.getpid(), signal.SIGSEGV)
        time.sleep(3600)
