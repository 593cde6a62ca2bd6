"""What a worker knows about its model: the Load message, with the configuration parsed."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any

from broker.messages import ErrorCode, Load
from workers.errors import BackendError
from workers.threads import intra_op_threads


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A declared input or output; `dims` are without the batch dimension and what the model itself sees (`reshape`)."""

    name: str
    datatype: str
    dims: tuple[int, ...]
    is_optional: bool = False
    is_ragged: bool = False

    @property
    def data_type(self) -> str:
        """The datatype as configurations spell it, `TYPE_STRING`."""
        return data_type_of(self.datatype)


@dataclass(frozen=True, slots=True)
class BatchInput:
    """An input that the model gets with every batch and no client sends: what `kind` says of the input `source`."""

    names: tuple[str, ...]
    kind: str
    datatype: str
    source: str


@dataclass(frozen=True, slots=True)
class BatchOutput:
    """An output whose part for each request has the shape of its input `source` where its own `dims` are -1."""

    source: str
    dims: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One instance of one version of a model. `kind` is CPU, GPU or MODEL; a GPU is always number 0 in its worker."""

    name: str
    version: int
    instance: str
    backend: str
    directory: Path
    kind: str
    device_id: int
    config: dict[str, Any]
    settings: dict[str, str]
    max_batch_size: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batch_inputs: tuple[BatchInput, ...] = ()
    batch_outputs: Mapping[str, BatchOutput] = field(default_factory=dict)  # by name
    controls: tuple[TensorSpec, ...] = ()  # inputs that the server makes for requests of sequences
    states: tuple[tuple[TensorSpec, TensorSpec], ...] = ()  # of sequences: the input, and the output that follows it

    @staticmethod
    def from_load(load: Load) -> "ModelSpec":
        """Read what the broker says. Raises ValueError."""
        config = json.loads(load.config)
        return ModelSpec(
            name=load.model,
            version=load.version,
            instance=load.instance,
            backend=load.backend,
            directory=Path(load.model_directory),
            kind=load.kind.removeprefix("KIND_"),
            device_id=load.device_id,
            settings=load.settings,
            **_read(config),
        )

    def completed(self, found: Mapping[str, Any]) -> "ModelSpec":
        """The model with these fields, in JSON form, in its configuration."""
        return replace(self, **_read({**self.config, **found}))

    @property
    def fed(self) -> tuple[TensorSpec, ...]:
        """All inputs of an execution: those of requests, controls and states of sequences, and those of the batch."""
        made = [TensorSpec(name, batch.datatype, (-1,)) for batch in self.batch_inputs for name in batch.names]
        return (*self.inputs, *self.controls, *[before for before, _ in self.states], *made)

    @property
    def all_outputs(self) -> tuple[TensorSpec, ...]:
        """What the model itself gives: what clients may see, and states."""
        own = {spec.name for spec in self.outputs}
        return (*self.outputs, *[after for _, after in self.states if after.name not in own])

    @property
    def hidden(self) -> frozenset[str]:
        """Inputs and outputs that clients do not see unless the configuration lists them."""
        return frozenset(spec.name for spec in (*self.controls, *[spec for pair in self.states for spec in pair]))

    @property
    def version_directory(self) -> Path:
        """Where this version's files lie."""
        return self.directory / str(self.version)

    def parameter(self, key: str) -> str:
        """A model parameter's text, "" when it is not set."""
        return str(self.config.get("parameters", {}).get(key, {}).get("string_value", ""))

    def flag(self, key: str, default: bool) -> bool:
        """A parameter that is true or false. Raises BackendError."""
        text = self.parameter(key)
        if text.lower() in {"true", "on", "1"}:
            return True
        if text.lower() in {"false", "off", "0"}:
            return False
        if text:
            raise _not_a(text, key, "boolean")
        return default

    def number(self, key: str) -> float:
        """A parameter that is a number, 0 when it is not set. Raises BackendError."""
        try:
            return float(self.parameter(key) or 0)
        except ValueError:
            raise _not_a(self.parameter(key), key, "number") from None

    def integer(self, key: str) -> int:
        """A parameter that is an integer, 0 when it is not set. Raises BackendError."""
        try:
            return int(self.parameter(key) or 0)
        except ValueError:
            raise _not_a(self.parameter(key), key, "integer") from None

    def file(self, default: str) -> Path:
        """The model file (or directory) of this version. Raises BackendError."""
        name = str(self.config.get("default_model_filename") or default)
        relative = PurePath(os.path.normpath(f"{self.version}/{name}"))
        if PurePath(name).is_absolute() or relative.parts[:1] == ("..",):
            raise BackendError(
                ErrorCode.INVALID_ARG,
                f"default_model_filename '{name}' of model '{self.name}' leaves the model directory",
            )
        path = self.directory / relative
        if not path.exists():
            raise BackendError(ErrorCode.UNAVAILABLE, f"unable to find '{path}' for model instance '{self.instance}'")
        return path

    @property
    def library(self) -> Path:
        """Where the file of the model's backend lies if that is Python-based."""
        return Path(self.settings.get("backend-directory", ""), self.backend, "model.py")

    @property
    def threads(self) -> int:
        """This instance's fair share of the processors."""
        groups = self.config.get("instance_group", ())
        instances = sum(int(g.get("count", 1)) * max(1, len(g.get("gpus", ()))) for g in groups)
        return intra_op_threads(instances)


def _not_a(text: str, key: str, kind: str) -> BackendError:
    return BackendError(ErrorCode.INVALID_ARG, f"failed to convert '{text}' to {kind} (parameter '{key}')")


def _read(config: dict[str, Any]) -> dict[str, Any]:
    """The fields of a ModelSpec that follow from its configuration."""
    sequences = config.get("sequence_batching", {})
    return {
        "config": config,
        "max_batch_size": int(config.get("max_batch_size", 0)),
        "inputs": tuple(_tensor(t) for t in config.get("input", ())),
        "outputs": tuple(_tensor(t) for t in config.get("output", ())),
        "batch_inputs": tuple(_batch_input(b) for b in config.get("batch_input", ())),
        "batch_outputs": dict(_batch_outputs(config)),
        "controls": tuple(_control(entry) for entry in sequences.get("control_input", ()) if entry["control"]),
        "states": tuple(_state(entry) for entry in sequences.get("state", ())),
    }


def _tensor(entry: dict[str, Any]) -> TensorSpec:
    reshape = entry.get("reshape")
    dims = entry.get("dims", ()) if reshape is None else reshape.get("shape", ())
    return TensorSpec(
        entry["name"],
        datatype_of(entry.get("data_type", "")),
        tuple(int(d) for d in dims),
        bool(entry.get("optional", False)),
        bool(entry.get("allow_ragged_batch", False)),
    )


def _batch_input(entry: dict[str, Any]) -> BatchInput:
    (source,) = entry["source_input"]
    return BatchInput(tuple(entry["target_name"]), entry["kind"], datatype_of(entry["data_type"]), source)


def _batch_outputs(config: dict[str, Any]) -> Iterator[tuple[str, BatchOutput]]:
    dims = {output["name"]: tuple(output["dims"]) for output in config.get("output", ())}
    lead = (-1,) if config.get("max_batch_size", 0) else ()
    for entry in config.get("batch_output", ()):
        (source,) = entry["source_input"]
        for name in entry["target_name"]:
            yield name, BatchOutput(source, (*lead, *dims[name]))


def _control(entry: dict[str, Any]) -> TensorSpec:
    control = entry["control"][0]
    for pair, datatype in (("int32_false_true", "INT32"), ("fp32_false_true", "FP32"), ("bool_false_true", "BOOL")):
        if control.get(pair):
            return TensorSpec(entry["name"], datatype, (1,), False)
    return TensorSpec(entry["name"], datatype_of(control["data_type"]), (1,), False)


def _state(entry: dict[str, Any]) -> tuple[TensorSpec, TensorSpec]:
    datatype, dims = datatype_of(entry["data_type"]), tuple(int(dim) for dim in entry["dims"])
    return (
        TensorSpec(entry["input_name"], datatype, dims, False),
        TensorSpec(entry["output_name"], datatype, dims, False),
    )


def datatype_of(data_type: str) -> str:
    """`FP32` for `TYPE_FP32`, `BYTES` for `TYPE_STRING`."""
    return "BYTES" if data_type == "TYPE_STRING" else data_type.removeprefix("TYPE_")


def data_type_of(datatype: str) -> str:
    """The mirror of `datatype_of`."""
    return "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"
