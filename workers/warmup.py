"""Warm-up: requests that the model's configuration describes, executed before the instance is ready."""

import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from broker.messages import ErrorCode, Item, Part, WarmedUp
from shm.arena import inline
from shm.datatypes import expected_byte_size
from shm.ref import TensorRef
from workers.backend import Backend, Execution, Interface
from workers.errors import BackendError
from workers.model import ModelSpec, datatype_of
from workers.outcome import Outcome
from workers.streams import WARM_UP, Streams

_TAG = "[request id: <id_unknown>] "


class Sample(NamedTuple):
    """One `model_warmup`: its requests are executed together, so many times."""

    name: str
    times: int
    items: tuple[Item, ...]


class _Declared(NamedTuple):
    """An input of the model: `dims` None leaves the shape unchecked, `reshape` is what the backend gets instead."""

    datatype: str
    dims: tuple[int, ...] | None
    reshape: tuple[int, ...] | None
    is_optional: bool


class _Finals:
    """Collects what streams answer during an execution, until each has ended."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._ended: dict[int, Outcome | None] = {}

    def take(self, index: int, outcome: Outcome | None, part: int) -> None:
        """One response; an error or the end of a stream is kept."""
        if part & Part.FINAL:
            with self._condition:
                self._ended[index] = outcome
                self._condition.notify_all()

    def wait_for(self, indices: Sequence[int]) -> list[Outcome | None]:
        """How these streams have ended, once they all have."""
        with self._condition:
            self._condition.wait_for(lambda: all(index in self._ended for index in indices))
        return [self._ended[index] for index in indices]


def samples(model: ModelSpec, interface: Interface) -> Iterator[Sample]:
    """The samples of the model's configuration that make requests. Raises BackendError, which names the sample."""
    declared = _declared(model, interface)
    max_batch_size = interface.max_batch_size(model)
    for sample in model.config.get("model_warmup", ()):
        name, batch = sample["name"], int(sample["batch_size"])
        if batch > max(1, max_batch_size):
            raise _failed(name, [f"batch size {batch} for '{model.instance}', max allowed is {max_batch_size}"])
        try:
            refs = [_input(model, key, given, max_batch_size > 0) for key, given in sample["inputs"].items()]
            refs = [_checked(model.name, declared.get(ref.name), ref, max_batch_size > 0) for ref in refs]
            _check_names(model.name, declared, refs)
        except BackendError as error:
            raise BackendError(error.code, f"{error} (warmup sample '{name}')") from None
        except OSError as error:
            text = f"failed to open text file for read {error.filename}: {error.strerror} (warmup sample '{name}')"
            raise BackendError(ErrorCode.INTERNAL, text) from None
        item = Item("", tuple(refs), (), {}, 0, 0, 0, 0, "")
        yield Sample(name, max(1, int(sample["count"])), (item,) * batch)


def run(sample: Sample, backend: Backend, streams: Streams, send: Callable[[WarmedUp], None]) -> None:
    """Execute a sample; `send` gets what the statistics count. Raises BackendError, which names the sample."""
    for _ in range(sample.times if sample.items else 0):
        execution = Execution(WARM_UP)
        finals = _Finals()
        with streams.diverted(finals.take):
            try:
                outcomes = list(backend.execute(sample.items, execution))
            except BackendError as error:
                raise _failed(sample.name, [str(error)]) from None
            outcomes += finals.wait_for([index for index, outcome in enumerate(outcomes) if outcome is None])
        execution.outputs_are_computed()
        errors = [str(outcome) for outcome in outcomes if isinstance(outcome, BackendError)]
        if errors:
            raise _failed(sample.name, errors)
        done = execution.outputs_computed
        send(WarmedUp(len(sample.items), (execution.began, execution.inputs_ready, done, done)))


def _failed(sample: str, errors: Sequence[str]) -> BackendError:
    return BackendError(
        ErrorCode.INVALID_ARG, f"failed to run warmup sample '{sample}': {''.join(f'{error}; ' for error in errors)}"
    )


# ------------------------------------------------------------------------------------------------- inputs


def _input(model: ModelSpec, name: str, given: Mapping[str, Any], is_batched: bool) -> TensorRef:
    """One input of a sample, as a client would send it. Raises BackendError, OSError."""
    datatype, dims = datatype_of(given["data_type"]), tuple(int(dim) for dim in given["dims"])
    size = expected_byte_size(datatype, dims)
    if "input_data_file" in given:
        data = _read(model, given["input_data_file"], size)
    elif size is None:
        data = bytes(4 * math.prod(dims))  # empty strings
    elif given.get("random_data"):
        data = os.urandom(size)
        if datatype == "BOOL":
            data = bytes(byte & 1 for byte in data)
    else:
        data = bytes(size)
    return inline(name, datatype, (1, *dims) if is_batched else dims, data)


def _read(model: ModelSpec, name: str, size: int | None) -> bytes:
    """The beginning of a file in `warmup/` that a tensor of `size` bytes takes; all of it for BYTES."""
    root = model.directory.resolve()
    path = model.directory / "warmup" / name
    if not path.resolve().is_relative_to(root):
        raise BackendError(ErrorCode.INVALID_ARG, f"input_data_file '{name}' is outside model directory")
    data = path.read_bytes()
    if size is not None and len(data) < size:
        raise BackendError(
            ErrorCode.INVALID_ARG,
            f"{_TAG}warmup setting expects {size} bytes, but the data provided from {name} only has {len(data)} bytes",
        )
    return data[:size]


def _declared(model: ModelSpec, interface: Interface) -> dict[str, _Declared]:
    found = {io.name: _Declared(io.datatype, io.dims, None, False) for io in interface.inputs}
    return found | {
        entry["name"]: _Declared(
            datatype_of(entry["data_type"]),
            tuple(int(dim) for dim in entry["dims"]),
            tuple(int(dim) for dim in entry["reshape"].get("shape", ())) if "reshape" in entry else None,
            bool(entry.get("optional", False)),
        )
        for entry in model.config.get("input", ())
    }


def _checked(model: str, declared: _Declared | None, ref: TensorRef, is_batched: bool) -> TensorRef:
    """The input as the backend wants it; inputs that the model does not declare pass as they are."""
    if declared is None:
        return ref
    if ref.datatype != declared.datatype:
        text = f"inference input '{ref.name}' data-type is '{ref.datatype}', but model '{model}' expects"
        raise BackendError(ErrorCode.INVALID_ARG, f"{_TAG}{text} '{declared.datatype}'")
    if declared.dims is None:
        return ref
    lead = 1 if is_batched else 0
    wanted = (-1,) * lead + declared.dims
    if len(wanted) != len(ref.shape) or any(w not in (-1, g) for w, g in zip(wanted, ref.shape, strict=True)):
        text = f"unexpected shape for input '{ref.name}' for model '{model}'. Expected {_shape(wanted)}"
        raise BackendError(ErrorCode.INVALID_ARG, f"{_TAG}{text}, got {_shape(ref.shape)}.")
    if declared.reshape is None:
        return ref
    variable = iter([given for dim, given in zip(declared.dims, ref.shape[lead:], strict=True) if dim == -1])
    reshaped = tuple(next(variable) if dim == -1 else dim for dim in declared.reshape)
    return ref._replace(shape=ref.shape[:lead] + reshaped)


def _check_names(model: str, declared: Mapping[str, _Declared], refs: Sequence[TensorRef]) -> None:
    given = sorted(ref.name for ref in refs)
    missing = sorted(name for name, one in declared.items() if not one.is_optional and name not in given)
    if missing:
        raise BackendError(
            ErrorCode.INVALID_ARG,
            f"{_TAG}expected {len(declared)} inputs but got {len(given)} inputs for model '{model}'. Got input(s) "
            f"[{_quoted(given)}], but missing required input(s) [{_quoted(missing)}]. Please provide all required "
            "input(s).",
        )


def _quoted(names: Sequence[str]) -> str:
    return ",".join(f"'{name}'" for name in names)


def _shape(dims: Sequence[int]) -> str:
    return f"[{','.join(map(str, dims))}]"
