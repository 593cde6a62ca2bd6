"""What a backend is: code that loads one kind of model and executes batches of requests on it."""

import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, TypeAlias

from broker.messages import ErrorCode, Item
from workers.calls import Calls
from workers.errors import BackendError
from workers.inputs import Inputs
from workers.model import ModelSpec
from workers.outcome import Again, Outcome
from workers.streams import Streams

Log: TypeAlias = Callable[[str, str], None]
"""Takes a level (one of `IWEV`) and a line for the server's log."""


Room: TypeAlias = Callable[[Item, str, int], memoryview | None]
"""Takes a request that is executed alone, the name of an output and its size in bytes: where to write it, or None."""


class IO(NamedTuple):
    """An input or output that the configuration does not declare; datatype "" is any, dims None are unchecked."""

    name: str
    datatype: str
    dims: tuple[int, ...] | None


class Interface(NamedTuple):
    """The inputs and outputs that the model itself declares; empty where the configuration does.

    `config` are fields of the configuration that the model has completed, in its JSON form. `check` says whether the
    model is ready in its own eyes: None, or why not; it is called on a thread of its own.
    """

    inputs: tuple[IO, ...] = ()
    outputs: tuple[IO, ...] = ()
    config: Mapping[str, Any] = MappingProxyType({})
    check: Callable[[], BackendError | None] | None = None

    def max_batch_size(self, model: ModelSpec) -> int:
        """The configured one, or what the model has completed."""
        return int(self.config.get("max_batch_size", model.max_batch_size))


class Execution:
    """A batch in execution: its number, and when it reached its stages; backends that gather inputs say so.

    Times are in nanoseconds of the monotonic clock.
    """

    __slots__ = ("attempt", "began", "inputs_ready", "outputs_computed")

    def __init__(self, attempt: int) -> None:
        """Execution begins now."""
        self.attempt = attempt
        self.began = self.inputs_ready = time.monotonic_ns()
        self.outputs_computed = 0

    def inputs_are_ready(self) -> None:
        """The model's inputs are in place."""
        self.inputs_ready = time.monotonic_ns()

    def outputs_are_computed(self) -> None:
        """The model has run; the first call counts."""
        self.outputs_computed = self.outputs_computed or time.monotonic_ns()


class Host(NamedTuple):
    """What a worker has for its backend. `streams` and `calls` are for models that answer by themselves, or ask; `room`
    is for backends that can be told where to write."""

    inputs: Inputs
    log: Log
    streams: Streams
    calls: Calls
    room: Room


class Backend(Protocol):
    """One loaded model. Made by its class as `cls(model, host)`, which only stores them."""

    def load(self) -> Interface:
        """Load the model. Raises BackendError, which is final."""

    def execute(self, requests: Sequence[Item], execution: Execution) -> Sequence[Outcome | Again | None]:
        """Run a batch: one outcome for each request, in order; None where a stream answers (`Host.streams`).

        A BackendError raised fails the whole batch.
        """

    def unload(self) -> None:
        """The model is about to go; the process ends afterwards."""


class _Entry(NamedTuple):
    module: str
    class_name: str
    framework: str  # the packages that may be missing, and the extra that brings them
    extra: str

    def lacks(self, backend: str, package: str) -> str:
        """What a model of this backend is told when a package is missing."""
        return (
            f"backend '{backend}' needs the package '{package}', which is not installed: "
            f"pip install 'tidepool[{self.extra}]'"
        )


_BACKENDS = {
    "identity": _Entry("workers.backends.identity", "IdentityBackend", "", ""),
    "python": _Entry("workers.backends.python", "PythonBackend", "", ""),
    "pytorch": _Entry("workers.backends.pytorch.backend", "PyTorchBackend", "torch", "torch"),
    "onnxruntime": _Entry("workers.backends.onnxruntime", "OnnxRuntimeBackend", "onnxruntime", "onnx"),
    "openvino": _Entry("workers.backends.openvino", "OpenVinoBackend", "openvino", "openvino"),
    "tensorflow": _Entry("workers.backends.tensorflow", "TensorFlowBackend", "tensorflow", "tensorflow"),
    "repeat": _Entry("workers.backends.repeat", "RepeatBackend", "", ""),
    "sequence": _Entry("workers.backends.sequence", "SequenceBackend", "", ""),
    "square": _Entry("workers.backends.square", "SquareBackend", "", ""),
    "tensorrt": _Entry("workers.backends.tensorrt", "TensorRTBackend", "tensorrt cupy", "gpu"),
}


_prepared: dict[str, Callable[[ModelSpec, Host], Backend]] = {}


def prepare(backend: str) -> None:
    """Import a backend with its framework for workers to come; `prepare` of its class, if it has one, does the rest.

    Raises ImportError.
    """
    entry = _BACKENDS.get(backend)
    if entry is None:
        raise ImportError(backend)
    cls = _prepared[backend] = getattr(import_module(entry.module), entry.class_name)
    getattr(cls, "prepare", lambda: None)()


def create(model: ModelSpec, host: Host) -> Backend:
    """The backend that a model names; its framework is imported here or in the nursery. Raises BackendError."""
    if model.backend in _prepared:
        return _prepared[model.backend](model, host)
    entry = _BACKENDS.get(model.backend) or (_BACKENDS["python"] if model.library.is_file() else None)
    if entry is None:
        raise BackendError(
            ErrorCode.INVALID_ARG,
            f"unable to find backend '{model.backend}' for model '{model.name}', there are: {', '.join(_BACKENDS)}",
        )
    try:
        cls: Callable[[ModelSpec, Host], Backend] = getattr(import_module(entry.module), entry.class_name)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in entry.framework.split():
            raise
        raise BackendError(ErrorCode.UNAVAILABLE, entry.lacks(model.backend, missing)) from None
    return cls(model, host)


def lacking() -> dict[str, str]:
    """The backends whose package is not installed, and what to do about it; nothing is imported for that."""
    needs = [(name, entry, package) for name, entry in _BACKENDS.items() for package in entry.framework.split()]
    return {name: entry.lacks(name, package) for name, entry, package in needs if find_spec(package) is None}
