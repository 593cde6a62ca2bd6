"""Can this ensemble be served with the models that there are? Triton's checks of what its steps are made of. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from broker.graph import Graph, Mixed
from broker.models import Model, Version, VersionState
from configs.description import EnsembleStep, ModelDescription, TensorSpec

MAX_DEPTH = 16
"""Ensembles in ensembles: each level is one more that hears of every response in the same moment."""


class NotYet(Exception):
    """Models that the ensemble needs are still loading."""


class Invalid(Exception):
    """The ensemble cannot be served; the text says why."""


class Composed(NamedTuple):
    """An ensemble whose steps have their models: its graph, and the labels of its outputs that it takes from these."""

    graph: Graph
    labels: dict[str, tuple[str, ...]]


class _Tensor(NamedTuple):
    """What one model says of a tensor of the ensemble."""

    model: str
    datatype: str
    dims: tuple[int, ...] | None
    is_batched: bool


def compose(description: ModelDescription, models: Mapping[str, Model], is_complete: bool) -> Composed:
    """Check an ensemble; `is_complete`: no model is missing only because nobody has looked for it yet.

    Raises NotYet, Invalid.
    """
    name = description.name
    _check_circle(name, models)
    missing = [m for m in dict.fromkeys(step.model for step in description.steps) if not _is_known(models.get(m))]
    if missing:
        if not is_complete:
            raise NotYet
        raise Invalid(f"ensemble {name} contains models that are not available or ambiguous: {', '.join(missing)}")
    returned = {spec.name for spec in description.inputs} & {spec.name for spec in description.outputs}
    if returned:
        raise Invalid(f"in ensemble {name}, {', '.join(sorted(returned))} cannot be both an input and an output")
    parts = [_part(name, step, models[step.model]) for step in description.steps]
    for part in parts:
        limit = part.signature.max_batch_size
        if 0 < limit < description.max_batch_size:
            raise Invalid(
                f"ensemble {name} allows maximum batch size {description.max_batch_size}, but it contains model "
                f"{part.model} which only allows maximum batch size to be {limit}"
            )
    _check_tensors(description, parts)
    return _composed(description, parts)


def _is_known(model: Model | None) -> bool:
    return model is not None and (model.description is not None or bool(model.rejected) or bool(model.versions))


def _check_circle(name: str, models: Mapping[str, Model]) -> None:
    """Raises Invalid when the ensemble needs itself."""
    seen: set[str] = set()
    way = [name]
    while way:
        current = way.pop()
        model = models.get(current)
        steps = model.description.steps if model is not None and model.description is not None else ()
        for step in steps:
            if step.model == name:
                raise Invalid(f"circular dependency between ensembles: {name} -> ... -> {current} -> {name}")
            if step.model not in seen:
                seen.add(step.model)
                way.append(step.model)


def _part(ensemble: str, step: EnsembleStep, model: Model) -> Version:
    """The version that a step runs on. Raises NotYet, Invalid."""
    if step.version == -1:
        found = model.newest_ready()
        candidates = list(model.versions.values())
    else:
        found = model.versions.get(step.version)
        candidates = [found] if found is not None else []
    if found is not None and found.state is VersionState.READY:
        if found.is_unread:
            raise NotYet
        return found
    if any(version.state is VersionState.LOADING for version in candidates):
        raise NotYet
    depends = f"ensemble '{ensemble}' depends on '{step.model}'"
    failures = "".join(f"version {n} is at UNAVAILABLE state: {text};" for n, text in sorted(model.failures.items()))
    is_invalid = model.description is not None and model.description.steps and model.failures
    if is_invalid or (model.rejected and not model.versions):
        reason = model.rejected or next(iter(model.failures.values()))
        raise Invalid(f"{depends} which is not valid. Model '{step.model}' failed with error: {reason}")
    cause = f" Model '{step.model}' loading failed with error: {failures}" if failures else ""
    if step.version == -1:
        raise Invalid(f"{depends} which has no loaded version.{cause}")
    raise Invalid(f"{depends} whose required version {step.version} is not loaded.{cause}")


def _check_tensors(description: ModelDescription, parts: Sequence[Version]) -> None:
    """Raises Invalid when a step maps what its model does not have, or models disagree about a tensor."""
    found: dict[str, _Tensor] = {}
    is_batched = description.max_batch_size > 0
    for spec in (*description.inputs, *description.outputs):
        dims = spec.dims if spec.reshape is None else spec.reshape
        _agree(description.name, spec.name, found, _Tensor(description.name, spec.datatype, dims, is_batched))
    for step, part in zip(description.steps, parts, strict=True):
        inputs = {spec.name: spec for spec in part.signature.inputs}
        outputs = {spec.name: spec for spec in part.signature.outputs}
        _check_names(description.name, step, inputs, outputs)
        for pairs, specs in ((step.inputs, inputs), (step.outputs, outputs)):
            for name, tensor in pairs:
                if name in specs:
                    spec, batches = specs[name], part.signature.max_batch_size > 0
                    _agree(description.name, tensor, found, _Tensor(part.model, spec.datatype, spec.dims, batches))


def _check_names(
    ensemble: str, step: EnsembleStep, inputs: Mapping[str, TensorSpec], outputs: Mapping[str, TensorSpec]
) -> None:
    for name, tensor in step.inputs:
        if name not in inputs:
            text = f"ensemble tensor {tensor} is mapping to non-existing input {name} in model {step.model}"
            raise Invalid(f"in ensemble {ensemble}, {text}")
    mapped = {name for name, _ in step.inputs}
    for spec in inputs.values():
        if spec.name not in mapped and not spec.optional:
            text = f"input {spec.name} in model {step.model} is not mapped to any ensemble tensors"
            raise Invalid(f"in ensemble {ensemble}, {text}")
    for name, tensor in step.outputs:
        if outputs and name not in outputs:
            text = f"ensemble tensor {tensor} is mapped from non-existing output {name} in model {step.model}"
            raise Invalid(f"in ensemble {ensemble}, {text}")


def _agree(ensemble: str, name: str, found: dict[str, _Tensor], said: _Tensor) -> None:
    """What the first model says of a tensor is what the others have to agree with. Raises Invalid."""
    first = found.setdefault(name, said)
    where = f"in ensemble {ensemble}, ensemble tensor {name}"
    if first.datatype and said.datatype and first.datatype != said.datatype:
        raise Invalid(
            f"{where}: inconsistent data type: {_type(first)} is inferred from model {first.model} while {_type(said)} "
            f"is inferred from model {said.model}"
        )
    if first.dims is None or said.dims is None or _match(first.dims, said.dims) or _match(_full(first), _full(said)):
        return
    raise Invalid(
        f"{where}: inconsistent shape: {_shape(first)} is inferred from model {first.model} while {_shape(said)} is "
        f"inferred from model {said.model}"
    )


def _match(one: Sequence[int], other: Sequence[int]) -> bool:
    return len(one) == len(other) and all(a == b or -1 in (a, b) for a, b in zip(one, other, strict=True))


def _full(tensor: _Tensor) -> tuple[int, ...]:
    dims = tensor.dims or ()
    return (-1, *dims) if tensor.is_batched else dims


def _type(tensor: _Tensor) -> str:
    return "TYPE_STRING" if tensor.datatype == "BYTES" else f"TYPE_{tensor.datatype}"


def _shape(tensor: _Tensor) -> str:
    return "[" + ",".join(map(str, tensor.dims or ())) + "]"


def _composed(description: ModelDescription, parts: Sequence[Version]) -> Composed:
    graph = Graph(
        [spec.name for spec in description.inputs],
        [spec.name for spec in description.outputs],
        description.steps,
        [index for index, part in enumerate(parts) if part.description.decoupled],
        1 + max(part.graph.depth if part.graph is not None else 0 for part in parts),
    )
    if graph.depth > MAX_DEPTH:
        raise Invalid(f"in ensemble {description.name}, ensembles are nested more than {MAX_DEPTH} deep")
    try:
        graph.plan(())
    except Mixed:
        raise Invalid(
            f"in ensemble {description.name}, step of model '{description.name}' receives inputs originated from "
            "different decoupled models"
        ) from None
    return Composed(graph, _labels(description, parts))


def _labels(description: ModelDescription, parts: Iterable[Version]) -> dict[str, tuple[str, ...]]:
    """The labels of each output: its own, or those of the model's output that it is."""
    found = {
        tensor: spec.labels
        for step, part in zip(description.steps, parts, strict=True)
        for name, tensor in step.outputs
        for spec in part.description.outputs
        if spec.name == name
    }
    return {spec.name: spec.labels or found.get(spec.name, ()) for spec in description.outputs}
