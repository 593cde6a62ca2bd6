"""Answers to questions about models: lookups, metadata, readiness, statistics. Pure reads of the core's state."""

from typing import Any

from broker.messages import ErrorCode
from broker.models import Model, Version, VersionState
from broker.validation import Rejected
from configs.description import TensorSpec
from configs.namespaces import ambiguity


def look_up(models: dict[str, Model], name: str, number: int) -> Version:
    """The version that serves a request; -1 is the newest that is ready. Raises Rejected with Triton's texts."""
    model = models.get(name)
    if model is None:
        ambiguous = ambiguity(name, models)
        if ambiguous:
            raise Rejected(ambiguous)
        raise Rejected(f"Request for unknown model: '{name}' is not found", ErrorCode.NOT_FOUND)
    if number == -1:
        version = model.newest_ready()
        if version is None:
            raise Rejected(f"Request for unknown model: '{name}' has no available versions", ErrorCode.NOT_FOUND)
        return version
    version = model.versions.get(number) or model.incoming.get(number)
    if version is None and number not in model.unloaded:
        raise Rejected(f"Request for unknown model: '{name}' version {number} is not found", ErrorCode.NOT_FOUND)
    if version is None or version.state is not VersionState.READY:
        raise Rejected(not_ready(name, number), ErrorCode.UNAVAILABLE)
    return version


def not_ready(model: str, number: int) -> str:
    """Why a request to a version that is not ready is refused."""
    return f"Request for unknown model: '{model}' version {number} is not at ready state"


def metadata(models: dict[str, Model], name: str, number: int) -> dict[str, Any]:
    """The model metadata of the V2 protocol. Raises Rejected."""
    version = look_up(models, name, number)
    numbers = sorted(n for n, v in models[name].versions.items() if v.state is VersionState.READY)
    description = version.description
    return {
        "name": name,
        "versions": [str(n) for n in (numbers if number == -1 else [number])],
        "platform": description.platform or description.backend,
        "inputs": [_tensor(version, spec) for spec in version.signature.inputs],
        "outputs": [_tensor(version, spec) for spec in version.signature.outputs],
    }


def _tensor(version: Version, spec: TensorSpec) -> dict[str, Any]:
    """An input or output as clients see it; what was not declared and cannot be known reads `ANY` and `[-1]`."""
    batch = [-1] if version.signature.max_batch_size and spec.dims is not None else []
    shape = [*batch, *(spec.dims if spec.dims is not None else [-1])]
    return {"name": spec.name, "datatype": spec.datatype or "ANY", "shape": shape}


def labels(models: dict[str, Model], name: str, number: int) -> dict[str, Any]:
    """What classifying the outputs of a model needs to know. Raises Rejected."""
    version = look_up(models, name, number)
    return {
        "is_batched": version.signature.max_batch_size > 0,
        "labels": {spec.name: spec.labels for spec in version.description.outputs if spec.labels},
    }


def is_model_ready(models: dict[str, Model], name: str, number: int) -> bool:
    """Whether the version (-1: any) serves; False for what does not exist."""
    model = models.get(name)
    if model is None:
        return False
    if number == -1:
        return any(version.is_ready for version in model.versions.values())
    version = model.versions.get(number)
    return version is not None and version.is_ready


def executing(models: dict[str, Model], version: Version) -> list[Version]:
    """The versions that execute a request: itself, or those of an ensemble's steps."""
    if version.graph is None:
        return [version]
    parts = [look_up(models, step.model, step.version) for step in version.graph.steps]
    return [each for part in dict.fromkeys(parts) for each in executing(models, part)]


def statistics(models: dict[str, Model], name: str, number: int) -> dict[str, Any]:
    """The statistics extension's answer; name `""` is all models. Raises Rejected."""
    if name and not any(v.is_ready for v in (models[name].versions.values() if name in models else ())):
        raise Rejected(f"requested model '{name}' is not available")
    chosen = [models[name]] if name else [models[key] for key in sorted(models)]
    versions = [
        version
        for model in chosen
        for _, version in sorted(model.versions.items())
        if version.state is VersionState.READY and number in (-1, version.number)
    ]
    if name and not versions:
        raise Rejected(f"requested model version is not available for model '{name}'")
    return {"model_stats": [v.statistics.to_json(v.model, v.number) for v in versions]}
