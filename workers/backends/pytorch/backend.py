"""The PyTorch backend: it finds out what a model file is, and executes batches of requests on what it holds."""

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

import torch

from broker.messages import ErrorCode, Item
from shm.ref import TensorRef
from workers import layout
from workers.backend import IO, Execution, Host, Interface
from workers.backends.pytorch import archive, arguments, classes, devices, results, script, settings
from workers.backends.pytorch.archive import Format
from workers.backends.pytorch.devices import Plan
from workers.backends.pytorch.program import Order, Program
from workers.backends.pytorch.settings import Settings
from workers.backends.pytorch.tensors import SUPPORTED, to_torch
from workers.batching import Array, Computed, execute_apart, execute_together
from workers.errors import BackendError
from workers.model import ModelSpec
from workers.outcome import Outcome

CLASS_FILE = "model.py"
_TRACE = "\nTraceback"
_LATER = {Format.EXPORTED: "exported", Format.COMPILED: "compiled"}
"""Loaders that import much of PyTorch, which other models do without."""


def loader(kind: Format) -> Callable[[Order], Program]:
    """What loads files of a format."""
    if kind in _LATER:
        later: Callable[[Order], Program] = import_module(f"workers.backends.pytorch.{_LATER[kind]}").load
        return later
    return classes.load if kind == Format.CLASS else script.load


class PyTorchBackend:
    """One model."""

    def __init__(self, model: ModelSpec, host: Host) -> None:
        """Nothing is loaded yet."""
        self._model = model
        self._inputs = host.inputs
        self._log = host.log
        self._joiner = layout.joiner(model)
        self._settings: Settings
        self._plan: Plan
        self._program: Program

    # ------------------------------------------------------------------------------------------- load

    def load(self) -> Interface:
        """Load the file; bind its arguments and results to names."""
        self._plan = devices.plan(self._model, torch.cuda.is_available())
        self._settings = settings.read(self._model)
        settings.apply(self._settings)
        arguments.check_tensors(self._model, SUPPORTED)
        self._program = self._load(self._file())
        return Interface(self._visible(self._program.found_inputs), self._visible(self._program.found_outputs))

    def unload(self) -> None:
        """The process ends, and with it everything."""

    def _file(self) -> Path:
        """The model file; with a runtime of its own, a class comes first."""
        model = self._model
        if model.config.get("runtime") == CLASS_FILE and (model.version_directory / CLASS_FILE).exists():
            return model.file(CLASS_FILE)
        return model.file("model.pt")

    def _load(self, path: Path) -> Program:
        model = self._model
        try:
            kind = archive.format_of(path)
            if kind == Format.PICKLED:
                raise BackendError(
                    ErrorCode.INVALID_ARG,
                    f"failed to load model '{model.name}' from '{path}': it holds a pickled object, "
                    'such as a state dict, whose class must be in a model.py beside it, with runtime: "model.py"',
                )
            return loader(kind)(Order(model, path, self._settings, self._plan, self._log))
        except BackendError:
            raise
        except Exception as error:  # whatever a broken file makes of the loader
            raise BackendError(
                ErrorCode.INTERNAL,
                f"failed to load model '{model.name}' from '{path}': {_text(error).partition(_TRACE)[0]}",
            ) from error

    def _visible(self, found: Sequence[IO]) -> tuple[IO, ...]:
        return tuple(io for io in found if io.name not in self._model.hidden)

    # ------------------------------------------------------------------------------------------- execute

    def execute(self, requests: Sequence[Item], execution: Execution) -> Sequence[Outcome]:
        """Run the model once for all requests, or once for each when it has no batch dimension."""
        if not self._model.max_batch_size:
            return execute_apart(requests, self._read_private, self._run, execution, self._joiner)
        read = self._read_private if len(requests) == 1 else self._read
        return execute_together(requests, read, self._run, execution, self._joiner)

    def _read_private(self, ref: TensorRef) -> Array:
        """A model may work on its inputs in place; numpy's write protection would not keep it from that."""
        return self._inputs.texts(ref) if _is_text(ref) else self._inputs.private(ref)

    def _read(self, ref: TensorRef) -> Array:
        return self._inputs.texts(ref) if _is_text(ref) else self._inputs.array(ref)

    def _run(self, inputs: dict[str, Array]) -> list[Computed]:
        program, plan = self._program, self._plan
        try:
            with torch.inference_mode() if self._settings.is_inference_mode else torch.no_grad():
                values = {
                    name: devices.to_device(to_torch(array), program.device, plan.pins_inputs)
                    for name, array in inputs.items()
                }
                positional, keyword = program.arguments(values)
                picked = results.pick(program.function(*positional, **keyword), program.outputs)
                picked = devices.to_host(picked, plan.pins_outputs)
                computed = [results.computed(o, value) for o, value in zip(program.outputs, picked, strict=True)]
        except BackendError:
            raise
        except Exception as error:  # code that we did not write
            raise BackendError(ErrorCode.INTERNAL, f"PyTorch execute failure: {_text(error)}") from error
        if self._settings.cleans_cache:
            torch.cuda.empty_cache()
        return computed


def _is_text(ref: TensorRef) -> bool:
    """Strings travel apart from tensors; what torch could not take is refused here, for one request alone."""
    if ref.datatype not in SUPPORTED:
        raise BackendError(
            ErrorCode.UNSUPPORTED, f"input '{ref.name}' has datatype {ref.datatype}, which PyTorch models do not take"
        )
    return ref.datatype == "BYTES"


def _text(error: Exception) -> str:
    """What went wrong, without torch's C++ stack."""
    return str(error).partition("\nException raised from")[0].strip() or type(error).__name__
