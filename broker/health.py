"""Whether the server is ready, and why not: by model, version and instance. Pure reads of the core's state."""

from collections.abc import Iterable
from typing import Any

from broker.models import Instance, InstanceState, Model, Version
from configs.namespaces import bare_name


def is_ready(model: Model) -> bool:
    """Whether all that should be served of a model is; what loads beside it, or has failed to, does not count."""
    return bool(model.versions or model.unloaded) and all(version.is_ready for version in model.versions.values())


def report(models: Iterable[Model]) -> list[dict[str, Any]]:
    """Every model with its versions and instances, and a reason for each that is not as it should be."""
    return [_model(model) for model in sorted(models, key=lambda model: model.name)]


def _model(model: Model) -> dict[str, Any]:
    namespace = model.description.namespace if model.description is not None else ""
    return {
        "name": bare_name(model.name),
        **({"namespace": namespace} if namespace else {}),
        "ready": is_ready(model),
        **_because(model.rejected),
        "versions": [_version(v) for v in sorted(model.all_versions(), key=lambda version: version.number)],
    }


def _version(version: Version) -> dict[str, Any]:
    return {
        "version": str(version.number),
        "state": version.state.value,
        "ready": version.is_ready,
        **_because(version.remark),
        "instances": [_instance(instance) for instance in version.instances],
    }


def _instance(instance: Instance) -> dict[str, Any]:
    return {
        "name": instance.key,
        "state": instance.state.value,
        "device": instance.spec.device or "cpu",
        "pid": instance.pid,
        **_because(instance.reason if instance.state is not InstanceState.READY else ""),
    }


def _because(reason: str) -> dict[str, str]:
    return {"reason": reason} if reason else {}
