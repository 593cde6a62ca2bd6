"""Ensembles as they stand in the text: the steps, and whether their tensors make a graph. With Triton's wording."""

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from configs.description import EnsembleStep, ModelDescription
from configs.namespaces import step_model
from configs.tree import Node

PLATFORM = "ensemble"
_NOT_FOR_ENSEMBLES = {
    "instance_group": "instance group should not be specified for ensemble '{}'",
    "optimization": "optimization should not be specified for ensemble '{}'",
    "model_warmup": "model_warmup can not be specified for ensemble '{}'",
}


def problems(config: Node, model: str) -> Iterator[str]:
    """What is wrong with how a model is, or is not, an ensemble."""
    if config.get("platform") != PLATFORM:
        if "ensemble_scheduling" in config:
            yield (
                f"{config.at('ensemble_scheduling')}: ensemble scheduling cannot be set for model '{model}' whose "
                "platform is not ensemble"
            )
        return
    if config.get("backend"):
        text = f"Ensemble model '{model}' must have platform type 'ensemble' and empty backend type"
        yield f"{config.at('backend')}: {text}"
    for field, text in _NOT_FOR_ENSEMBLES.items():
        if field in config:
            yield f"{config.at(field)}: {text.format(model)}"
    scheduling: Node | None = config.get("ensemble_scheduling")
    if scheduling is None:
        text = f"ensemble scheduling must be set for ensemble {model} whose platform is ensemble"
        yield f"{config.at('platform')}: {text}"
        return
    incomplete = list(_step_problems(scheduling, model))
    yield from incomplete or (f"{scheduling.position}: {text}" for text in _graph_problems(config, scheduling, model))


def steps(form: Mapping[str, Any]) -> tuple[EnsembleStep, ...]:
    """The steps of a normalised configuration."""
    return tuple(
        EnsembleStep(
            step["model_name"],
            step["model_version"],
            tuple(step["input_map"].items()),
            tuple(step["output_map"].items()),
        )
        for step in form.get("ensemble_scheduling", {}).get("step", ())
    )


def _step_problems(scheduling: Node, model: str) -> Iterator[str]:
    found: Sequence[Node] = scheduling.get("step")
    if not found:
        yield f"{scheduling.position}: must specify 'step' for ensemble '{model}'"
    for index, step in enumerate(found):
        for field in ("model_name", "input_map", "output_map"):
            if not step.get(field):
                yield f"{step.position}: must specify '{field}' in step {index} of ensemble '{model}'"
        if step.get("model_namespace"):
            yield f"{step.at('model_namespace')}: 'model_namespace' in step {index} of ensemble '{model}' is not built"


def _graph_problems(config: Node, scheduling: Node, model: str) -> Iterator[str]:
    found: Sequence[Node] = scheduling.get("step")
    given = [tensor.get("name") for tensor in config.get("input")]
    wanted = [tensor.get("name") for tensor in config.get("output")]
    produced: list[str] = []
    for index, step in enumerate(found):
        for tensor in step.get("output_map").values():
            if tensor in produced or tensor in given:
                yield (
                    f"ensemble tensor '{tensor}' can appear in an output map only once for ensemble '{model}' step "
                    f"{index}"
                )
            produced.append(tensor)
    consumed = {tensor for step in found for tensor in step.get("input_map").values()}
    for name in given:
        if name not in consumed and name not in wanted:
            yield f"ensemble input '{name}' for ensemble {model}' is not used"  # the quotation mark is Triton's
    for name in wanted:
        if name not in produced and name not in given:
            yield f"ensemble output '{name}' for ensemble {model}' is not used"
    yield from _unwritten(found, given, wanted, model)
    for tensor in produced:
        if tensor not in consumed and tensor not in wanted:
            yield f"ensemble tensor '{tensor}' is unused in ensemble '{model}'"


def _unwritten(found: Sequence[Node], given: Sequence[str], wanted: Sequence[str], model: str) -> Iterator[str]:
    """Outputs that cannot be derived from the inputs."""
    written = set(given)
    pending = list(found)
    while ready := [step for step in pending if written.issuperset(step.get("input_map").values())]:
        pending = [step for step in pending if step not in ready]
        written.update(tensor for step in ready for tensor in step.get("output_map").values())
    stuck = {tensor: step for step in pending for tensor in step.get("output_map").values()}
    for name in wanted:
        if name in stuck:
            missing = _ancestors(name, stuck) - written
            first = next((tensor for tensor in (*sorted(missing - stuck.keys()), *stuck) if tensor in missing), name)
            yield (
                f"output '{name}' for ensemble '{model}' is not written: at least one of its depending tensors, "
                f"'{first}', is not connected"
            )


def _ancestors(tensor: str, steps_by_output: Mapping[str, Node]) -> set[str]:
    """The tensors that one is made of, itself among them."""
    found: set[str] = set()
    way = [tensor]
    while way:
        name = way.pop()
        if name not in found:
            found.add(name)
            if name in steps_by_output:
                way += steps_by_output[name].get("input_map").values()
    return found


def resolved(description: ModelDescription, models: Container[str]) -> ModelDescription:
    """Under namespaces the steps name their models by what these are called in the whole server."""
    if not description.namespace:
        return description
    named = [(step, step_model(step.model, description.namespace, models)) for step in description.steps]
    return replace(description, steps=tuple([replace(step, model=name) for step, name in named]))
