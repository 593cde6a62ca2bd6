"""For backends whose inputs and outputs are always the same: a model's configuration completed, or checked."""

from collections.abc import Iterable
from typing import Any

from broker.messages import ErrorCode
from workers.backend import IO, Interface
from workers.errors import BackendError
from workers.model import ModelSpec, TensorSpec, data_type_of


def interface(model: ModelSpec, inputs: tuple[IO, ...], outputs: tuple[IO, ...], is_decoupled: bool) -> Interface:
    """What the configuration lacks of these inputs and outputs. Raises BackendError if it has others."""
    config: dict[str, Any] = {}
    if is_decoupled != model.config.get("model_transaction_policy", {}).get("decoupled", False):
        if "model_transaction_policy" in model.config:
            raise _refuse(model, f"decoupled: {str(is_decoupled).lower()} in its model_transaction_policy")
        config["model_transaction_policy"] = {"decoupled": is_decoupled}
    _check(model, "input", model.inputs, inputs)
    _check(model, "output", model.outputs, outputs)
    config |= {} if model.inputs else {"input": [*map(_entry, inputs)]}
    config |= {} if model.outputs else {"output": [*map(_entry, outputs)]}
    if config and model.settings.get("auto-complete-config", "true").lower() != "true":
        raise BackendError(ErrorCode.NOT_FOUND, f"model configuration is not complete for model '{model.name}'")
    return Interface(() if model.inputs else inputs, () if model.outputs else outputs, config)


def _check(model: ModelSpec, kind: str, declared: Iterable[TensorSpec], given: Iterable[IO]) -> None:
    stated = [(spec.name, spec.datatype) for spec in declared]
    wanted = [(io.name, io.datatype) for io in given]
    if stated and sorted(stated) != sorted(wanted):
        text = ", ".join(f"'{name}' of {data_type_of(datatype)}" for name, datatype in wanted)
        raise _refuse(model, f"the {kind}s {text}")


def _entry(io: IO) -> dict[str, Any]:
    return {"name": io.name, "data_type": data_type_of(io.datatype), "dims": list(io.dims or ())}


def _refuse(model: ModelSpec, what: str) -> BackendError:
    return BackendError(
        ErrorCode.INVALID_ARG, f"unable to load model '{model.name}', the backend '{model.backend}' needs {what}"
    )
