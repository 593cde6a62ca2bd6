"""Ensembles come and go with the models that they are made of. Pure; see `composition` for what is checked."""

from collections.abc import Iterable
from dataclasses import replace

from broker import answers
from broker.composition import Composed, Invalid, NotYet, compose
from broker.effects import Effect, Emit
from broker.fleet import Fleet
from broker.models import Model, Version, VersionState
from configs.description import EnsembleStep


class Compositions:
    """Brings the ensembles' states up to date with the other models'."""

    def __init__(self, fleet: Fleet, out: list[Effect]) -> None:
        """The models are the fleet's; `out` collects the effects."""
        self._fleet = fleet
        self._out = out
        self._models = fleet.models

    def settle(self, is_complete: bool, now: float) -> None:
        """Called when models have changed; `is_complete` as in `compose`. Ensembles may be parts of ensembles."""
        is_settled = False
        while not is_settled:
            changes = [self._settle(version, is_complete, now) for version in self._versions()]
            is_settled = not any(changes)

    def _versions(self) -> list[Version]:
        """Those of ensembles that serve, may serve, or will."""
        models = [model for model in self._models.values() if model.description is not None]
        versions = [v for model in models for v in (*model.versions.values(), *model.incoming.values())]
        return [version for version in versions if version.description.steps]

    def _settle(self, version: Version, is_complete: bool, now: float) -> bool:
        """Whether something has changed that others may depend on."""
        state, reason = version.state, version.reason
        try:
            self._serve(version, compose(version.description, self._models, is_complete), now)
        except NotYet:
            return False
        except Invalid as error:
            if state is not VersionState.UNAVAILABLE or reason != str(error):
                self._out.append(Emit("E", f"ensemble '{version.model}' cannot be served: {error}"))
                self._fleet.fail_version(version, str(error), now)
        return (version.state, version.reason) != (state, reason)

    def _serve(self, version: Version, composed: Composed, now: float) -> None:
        graph = composed.graph
        description = version.description
        is_decoupled = bool(graph.decoupled)
        version.description = replace(
            description,
            decoupled=is_decoupled,
            outputs=tuple([replace(spec, labels=composed.labels[spec.name]) for spec in description.outputs]),
            config={**description.config, "model_transaction_policy": {"decoupled": is_decoupled}},
        )
        version.graph = graph
        version.parts_are_ready = lambda: _are_ready(self._models, graph.steps)
        self._fleet.warm(version)
        if version.state is not VersionState.READY:
            self._fleet.serve_version(version, now)


def _are_ready(models: dict[str, Model], steps: Iterable[EnsembleStep]) -> bool:
    return all(answers.is_model_ready(models, step.model, step.version) for step in steps)


def parts(models: dict[str, Model], name: str) -> list[str]:
    """The models that an ensemble is made of."""
    description = models[name].description if name in models else None
    return [step.model for step in description.steps] if description is not None else []


def dependents(models: dict[str, Model], names: Iterable[str]) -> list[str]:
    """The ensembles that have one of these models in them, or in an ensemble of theirs."""
    found: list[str] = []
    way = list(names)
    while way:
        name = way.pop()
        for model in models.values():
            steps = model.description.steps if model.description is not None else ()
            if model.name not in found and any(step.model == name for step in steps):
                found.append(model.name)
                way.append(model.name)
    return found
