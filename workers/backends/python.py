"""The Python backend: a model is a class `TritonPythonModel` in a file of the model's version directory."""

import asyncio
import copy
import inspect
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from broker.messages import ErrorCode, Item
from workers import isolation, pb_utils
from workers.autocomplete import ModelConfig
from workers.backend import IO, Interface, Log, Outcome, Times
from workers.errors import BackendError
from workers.inputs import Inputs
from workers.model import ModelSpec, datatype_of
from workers.pb_utils import InferenceRequest, InferenceResponse

_OWN_FILES = os.path.dirname(os.path.dirname(__file__)) + os.sep


class PythonBackend:
    """One instance of a user's model."""

    def __init__(self, model: ModelSpec, inputs: Inputs, log: Log) -> None:
        """Nothing of the user's runs before `load`."""
        self._model = model
        self._inputs = inputs
        self._log = log
        self._path = ""
        self._instance: Any = None
        self._output_names: frozenset[str] = frozenset()
        self._loop: asyncio.AbstractEventLoop | None = None

    def load(self) -> Interface:
        """Import the file, complete the configuration, initialize the instance."""
        model = self._model
        path = model.file("model.py")
        if path.suffix != ".py":
            raise BackendError(ErrorCode.INTERNAL, f"Model name must end with '.py'. Model name is \"{path.name}\".")
        self._path = str(path)
        pb_utils.connect(self._write, str(model.version_directory))
        for name in ("triton_python_backend_utils", "c_python_backend_utils"):
            sys.modules[name] = pb_utils
        isolation.make_room([str(path.parent), str(model.directory)])
        try:
            model_class = isolation.import_file(path, str(model.version)).TritonPythonModel
            config = self._complete(model_class)
            instance = model_class()
            if hasattr(instance, "initialize"):
                instance.initialize(self._arguments(config))
        except BackendError:
            raise
        except BaseException as error:
            raise BackendError(ErrorCode.INTERNAL, describe(error)) from error
        self._instance = instance
        self._output_names = frozenset(entry["name"] for entry in config.get("output", ()))
        return Interface(
            () if model.inputs else tuple(_io(entry) for entry in config.get("input", ())),
            () if model.outputs else tuple(_io(entry) for entry in config.get("output", ())),
        )

    def execute(self, requests: Sequence[Item], times: Times) -> Sequence[Outcome]:
        """Hand the requests to the model, each with its own tensors."""
        refused: dict[int, BackendError] = {}
        received: list[InferenceRequest] = []
        for index, request in enumerate(requests):
            try:
                received.append(InferenceRequest.received(request, self._inputs, self._output_names))
            except BackendError as error:
                refused[index] = error
        times.inputs_are_ready()
        responses = iter(self._run(received) if received else ())
        times.outputs_are_computed()
        return [refused[i] if i in refused else self._outcome(next(responses)) for i in range(len(requests))]

    def unload(self) -> None:
        """Finalize the instance; what it raises is only logged."""
        try:
            if hasattr(self._instance, "finalize"):
                self._instance.finalize()
        except BaseException as error:
            self._log("E", f"finalize of model '{self._model.instance}' failed: {describe(error)}")
        if self._loop is not None:
            self._loop.close()

    # ------------------------------------------------------------------------------------------- execute

    def _run(self, requests: list[InferenceRequest]) -> list[InferenceResponse]:
        """The model's answers, one for each request. Raises BackendError for the whole batch."""
        count = len(requests)  # the list is the model's from now on
        try:
            if not hasattr(self._instance, "execute"):
                raise self._failed(f"Python model {self._path} does not implement `execute` method.")
            responses = self._instance.execute(requests)
            if inspect.iscoroutine(responses):
                responses = self._event_loop().run_until_complete(responses)
        except BackendError:
            raise
        except BaseException as error:
            raise self._failed(describe(error)) from error
        if not isinstance(responses, list):
            raise self._failed(f"Expected a list in the execute return, found type '{type(responses)}'.")
        if len(responses) != count:
            raise self._failed(
                "Number of InferenceResponse objects do not match the number of InferenceRequest objects. "
                f"InferenceRequest(s) size is:{count}, and InferenceResponse(s) size is:{len(responses)}\n"
            )
        for response in responses:
            if not isinstance(response, InferenceResponse):
                raise self._failed(
                    "Expected an 'InferenceResponse' object in the execute function return list, "
                    f"found type '{type(response)}'."
                )
        return responses

    def _outcome(self, response: InferenceResponse) -> Outcome:
        try:
            return response.outcome()
        except Exception as error:  # `str` of the user's objects
            return self._failed(describe(error))

    def _failed(self, text: str) -> BackendError:
        full = f"Failed to process the request(s) for model '{self._model.instance}', message: {text}"
        self._log("E", full)
        return BackendError(ErrorCode.INTERNAL, full)

    def _event_loop(self) -> asyncio.AbstractEventLoop:
        """One loop for the instance's life, so that what coroutines keep open stays usable."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        return self._loop

    # ------------------------------------------------------------------------------------------- load

    def _complete(self, model_class: Any) -> dict[str, Any]:
        """The configuration with the inputs and outputs that the model's `auto_complete_config` adds."""
        model = self._model
        is_wanted = model.settings.get("auto-complete-config", "true").lower() == "true"
        if not is_wanted or not hasattr(model_class, "auto_complete_config"):
            return model.config
        completed = model_class.auto_complete_config(ModelConfig(copy.deepcopy(model.config)))
        if not isinstance(completed, ModelConfig):
            raise BackendError(
                ErrorCode.INTERNAL,
                f"auto_complete_config function in model '{model.name}' must return a valid pb.ModelConfig object.",
            )
        wanted = completed.as_dict()
        for key in ("max_batch_size", "dynamic_batching", "model_transaction_policy"):
            if wanted.get(key) != model.config.get(key):
                self._log(
                    "W",
                    f"auto_complete_config of model '{model.name}' sets {key}, which is not applied: "
                    "write it in config.pbtxt",
                )
        return {**model.config, "input": wanted.get("input", []), "output": wanted.get("output", [])}

    def _arguments(self, config: dict[str, Any]) -> dict[str, str]:
        model = self._model
        return {
            "model_config": json.dumps(config),
            "model_instance_kind": model.kind,
            "model_instance_device_id": str(model.device_id),
            "model_instance_name": model.instance,
            "model_repository": str(model.directory),
            "model_version": str(model.version),
            "model_name": model.name,
        }

    def _write(self, level: str, text: str) -> None:
        if level != pb_utils.Logger.VERBOSE or self._model.log_verbose >= 1:
            self._log(level, text)


def describe(error: BaseException) -> str:
    """`<type>: <text>` and, under `At:`, the lines of the user's code, innermost first."""
    lines: list[str] = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if not code.co_filename.startswith((_OWN_FILES, "<frozen importlib")):
            lines.append(f"  {code.co_filename}({trace.tb_lineno}): {code.co_name}\n")
        trace = trace.tb_next
    text = f"{type(error).__name__}: {error}"
    return text if not lines else f"{text}\n\nAt:\n{''.join(reversed(lines))}"


def _io(entry: dict[str, Any]) -> IO:
    return IO(entry["name"], datatype_of(entry["data_type"]), tuple(int(d) for d in entry["dims"]))
