"""The Python backend: a model is a class `TritonPythonModel` in a file of the model's version directory.

A Python-based backend is the same, but that the file is the backend's and serves all its models.
"""

import asyncio
import copy
import inspect
import json
import os
import sys
import time
from collections.abc import Coroutine, Sequence
from typing import Any

from broker.messages import ErrorCode, Item
from workers import current, isolation, pb_utils
from workers.autocomplete import ModelConfig
from workers.backend import IO, Execution, Host, Interface
from workers.coroutines import Coroutines
from workers.errors import BackendError
from workers.model import ModelSpec, datatype_of
from workers.outcome import Again, Outcome
from workers.pb_requests import Batch, InferenceRequest
from workers.pb_responses import InferenceResponse
from workers.pb_server import server

_COMPLETED = ("max_batch_size", "input", "output", "dynamic_batching", "model_transaction_policy")
"""What `auto_complete_config` may set."""
_OWN_FILES = os.path.dirname(os.path.dirname(__file__)) + os.sep


class PythonBackend:
    """One instance of a user's model."""

    def __init__(self, model: ModelSpec, host: Host) -> None:
        """Nothing of the user's runs before `load`."""
        self._model = model
        self._inputs = host.inputs
        self._log = host.log
        self._streams = host.streams
        self._calls = host.calls
        self._path = ""
        self._instance: Any = None
        self._output_names: frozenset[str] = frozenset()
        self._found: dict[str, Any] = {}  # what auto_complete_config has changed
        self._is_decoupled = False
        self._is_iterative = bool(model.config.get("sequence_batching", {}).get("iterative_sequence"))
        self._coroutines = Coroutines()

    @staticmethod
    def prepare() -> None:
        """In a nursery."""
        isolation.leave_names()

    def load(self) -> Interface:
        """Import the file, complete the configuration, initialize the instance."""
        model = self._model
        is_own = model.backend == "python"
        path = model.file("model.py") if is_own else model.library
        if path.suffix != ".py":
            raise BackendError(ErrorCode.INTERNAL, f"Model name must end with '.py'. Model name is \"{path.name}\".")
        self._path = str(path)
        server.connect(self._log, model.instance, str(model.version_directory), self._calls)
        for name in ("triton_python_backend_utils", "c_python_backend_utils"):
            sys.modules[name] = pb_utils
        if self.__module__ in sys.modules:  # we come out of no nursery
            isolation.leave_names()
        isolation.make_room([str(path.parent), str(model.directory)] if is_own else [str(path.parent)])
        try:
            began = time.monotonic()
            model_class = isolation.import_file(path, str(model.version) if is_own else "").TritonPythonModel
            imported = time.monotonic()
            config = self._complete(model_class)
            instance = model_class()
            if hasattr(instance, "initialize"):
                instance.initialize(self._arguments(config))
            self._log("V", f"import: {imported - began:.4f} s, initialize: {time.monotonic() - imported:.4f} s")
        except BackendError:
            raise
        except BaseException as error:
            raise BackendError(ErrorCode.INTERNAL, describe(error)) from error
        self._instance = instance
        self._output_names = frozenset(entry["name"] for entry in config.get("output", ()))
        self._is_decoupled = self._calls.is_decoupled = pb_utils.using_decoupled_model_transaction_policy(config)
        server.is_serving = True
        return Interface(
            () if model.inputs else tuple(_io(entry) for entry in config.get("input", ())),
            () if model.outputs else tuple(_io(entry) for entry in config.get("output", ())),
            self._found,
            self._check_ready if hasattr(instance, "is_ready") else None,
        )

    def execute(self, requests: Sequence[Item], execution: Execution) -> Sequence[Outcome | Again | None]:
        """Hand the requests to the model, each with its own tensors."""
        refused: dict[int, BackendError] = {}
        received: list[InferenceRequest] = []
        batch = Batch(self._streams, execution.attempt, self._is_decoupled, self._is_iterative)
        for index, item in enumerate(requests):
            try:
                received.append(InferenceRequest.received(item, self._inputs, self._output_names, batch, index))
            except BackendError as error:
                refused[index] = error
        execution.inputs_are_ready()
        self._calls.attempt = execution.attempt
        current.work_on(requests)
        outcomes = self._run(received) if received else []
        current.work_on(())
        self._calls.attempt = 0
        execution.outputs_are_computed()
        for index, refusal in refused.items():  # ascending
            outcomes.insert(index, refusal)
        return outcomes

    def _check_ready(self) -> BackendError | None:
        """What the model's `is_ready` says."""
        try:
            answer = self._instance.is_ready()
            if inspect.iscoroutine(answer):
                answer = asyncio.run(answer)
        except BaseException as error:
            return BackendError(ErrorCode.INTERNAL, describe(error))
        if not isinstance(answer, bool):
            return BackendError(ErrorCode.INTERNAL, "is_ready() must return a boolean value")
        if not answer:
            text = f"Model '{self._model.instance}' is not ready (user-defined check failed)."
            return BackendError(ErrorCode.UNAVAILABLE, text)
        return None

    def unload(self) -> None:
        """Finalize the instance; what it raises is only logged."""
        server.is_serving = False
        try:
            if hasattr(self._instance, "finalize"):
                self._instance.finalize()
        except BaseException as error:
            self._log("E", f"finalize of model '{self._model.instance}' failed: {describe(error)}")
        self._coroutines.close()

    # ------------------------------------------------------------------------------------------- execute

    def _run(self, received: list[InferenceRequest]) -> list[Outcome | Again | None]:
        """The model's answers, one for each request."""
        requests = tuple(received)  # the list is the model's from now on
        if self._is_decoupled:
            for request in requests:
                request.get_response_sender()  # without it, nobody would see that the model has dropped the request
        try:
            if not hasattr(self._instance, "execute"):
                return self._fail(requests, f"Python model {self._path} does not implement `execute` method.")
            returned = self._instance.execute(received)
            if inspect.iscoroutine(returned):
                if self._is_decoupled:
                    self._coroutines.start(self._watch(returned, requests))
                    returned = None
                else:
                    returned = self._coroutines.run(returned)
        except BaseException as error:
            return self._fail(requests, describe(error))
        return self._stay_open(requests, returned) if self._is_decoupled else self._answer(requests, returned)

    def _answer(self, requests: Sequence[InferenceRequest], returned: object) -> list[Outcome | Again | None]:
        """What a model that is not decoupled returns: a response for each request.

        None for those with a sender, and for those that are to be executed once more.
        """
        if returned is None and any(request.has_sender or request.is_rescheduled for request in requests):
            returned = [None] * len(requests)
        if not isinstance(returned, list):
            return self._fail(requests, f"Expected a list in the execute return, found type '{type(returned)}'.")
        if len(returned) != len(requests):
            return self._fail(
                requests,
                "Number of InferenceResponse objects do not match the number of InferenceRequest objects. "
                f"InferenceRequest(s) size is:{len(requests)}, and InferenceResponse(s) size is:{len(returned)}\n",
            )
        for request, response in zip(requests, returned, strict=True):
            if request.is_rescheduled and response is not None:
                return self._fail(
                    requests,
                    "Expected a None object in the execute function return list for reschduled request, "
                    f"found type '{type(response)}'.",
                )
            is_open = request.has_sender or request.is_rescheduled
            if not isinstance(response, InferenceResponse) and not (response is None and is_open):
                return self._fail(
                    requests,
                    "Expected an 'InferenceResponse' object in the execute function return list, "
                    f"found type '{type(response)}'.",
                )
        return [
            _left_open(request) if response is None else request.answer(self._outcome(response))
            for request, response in zip(requests, returned, strict=True)
        ]

    def _stay_open(self, requests: Sequence[InferenceRequest], returned: object) -> list[Outcome | Again | None]:
        """What a decoupled model returns: None, always."""
        if returned is not None:
            return self._fail(
                requests,
                f"Python model '{self._model.instance}' is using the decoupled mode and the execute function must "
                "return None.",
            )
        return [_left_open(request) for request in requests]

    async def _watch(self, coroutine: Coroutine[Any, Any, Any], requests: Sequence[InferenceRequest]) -> None:
        """A decoupled `execute` that goes on while others begin."""
        try:
            await coroutine
        except BaseException as error:
            self._fail(requests, describe(error))

    def _fail(self, requests: Sequence[InferenceRequest], text: str) -> list[Outcome | Again | None]:
        """An error for every request that is not answered already."""
        error = self._failed(text)
        return [request.fail(error) for request in requests]

    def _outcome(self, response: InferenceResponse) -> Outcome:
        try:
            return response.outcome()
        except Exception as error:  # `str` of the user's objects
            return self._failed(describe(error))

    def _failed(self, text: str) -> BackendError:
        full = f"Failed to process the request(s) for model '{self._model.instance}', message: {text}"
        self._log("E", f"{current.tag()}{full}")
        return BackendError(ErrorCode.INTERNAL, full)

    # ------------------------------------------------------------------------------------------- load

    def _complete(self, model_class: Any) -> dict[str, Any]:
        """The configuration with what the model's `auto_complete_config` adds."""
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
        found = {key: wanted[key] for key in _COMPLETED if key in wanted and wanted[key] != model.config.get(key)}
        self._found = json.loads(json.dumps(found))
        return {**model.config, **found}

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


def _left_open(request: InferenceRequest) -> Again | None:
    return request.reschedule() if request.is_rescheduled else None


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
