"""Model namespaces: what models are called whose name is in several repositories. Pure."""

from collections.abc import Container, Iterable
from pathlib import Path


def identifier(repository: Path, name: str) -> str:
    """What a model is called whose name is in several repositories."""
    return f"{repository}::{name}"


def bare_name(model: str) -> str:
    """The name that a model has in its repository; identifiers begin with a path, names have none."""
    return model.rpartition("::")[2] if model.startswith("/") else model


def step_model(name: str, namespace: str, models: Container[str]) -> str:
    """The model that a step of an ensemble means: the one of its own repository, else the only one of that name."""
    own = identifier(Path(namespace), name)
    return own if own in models else name


def meant(name: str, models: Iterable[str]) -> list[str]:
    """The models that a load or unload request means: all of that name in their repositories, where several have it."""
    return sorted(model for model in models if model != name and bare_name(model) == name) or [name]


def ambiguity(name: str, models: Iterable[str]) -> str:
    """What is wrong with a name that several models have, "" for others."""
    count = sum(1 for model in models if model != name and bare_name(model) == name)
    if not count:
        return ""
    return (
        f"There are {count} identifiers of model '{name}' in global map, model namespace must be provided to resolve "
        "ambiguity."
    )
