"""A request's inputs as the arguments of `forward`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from broker.messages import ErrorCode
from workers.backends.pytorch import names
from workers.backends.pytorch.names import DICTIONARY, TENSOR, TENSORS, TEXTS, Argument
from workers.errors import BackendError
from workers.model import ModelSpec, TensorSpec

Call: TypeAlias = Callable[[Mapping[str, Any]], tuple[Sequence[Any], Mapping[str, Any]]]
"""Positional and keyword arguments from the inputs by name."""
Warn: TypeAlias = Callable[[str], None]


class Signature(NamedTuple):
    """How a model is called, and the names of its inputs."""

    arguments: Call
    inputs: Sequence[str]


def refuse(model: ModelSpec, text: str) -> BackendError:
    """A model that does not fit its configuration."""
    return BackendError(ErrorCode.INVALID_ARG, f"unable to load model '{model.name}', {text}")


def signature(model: ModelSpec, arguments: Sequence[Argument], warn: Warn, is_open: bool = False) -> Signature:
    """Bind the declared inputs to arguments of `forward`; `is_open`: it takes any number more. Raises BackendError."""
    declared = model.fed if model.inputs else ()
    container = next((a for a in arguments if a.kind in (DICTIONARY, TENSORS)), None)
    if container is not None:
        return _contained(model, arguments, container, [spec.name for spec in declared])
    _check(model, arguments, len(declared), is_open)
    inputs = [spec.name for spec in declared] or names.name_arguments(arguments)
    positions = bind(model, inputs, warn, {argument.name: i for i, argument in enumerate(arguments)})
    for name, position in zip(inputs, positions, strict=True):
        if position >= len(arguments) and not is_open:
            raise refuse(model, f"input '{name}' is for argument {position}, forward has {len(arguments)}")
    return Signature(_positional(inputs, positions, [argument.name for argument in arguments]), inputs)


def bind(model: ModelSpec, inputs: Sequence[str], warn: Warn, *tables: Mapping[str, int]) -> list[int]:
    """The place of each input, no two the same. Raises BackendError."""
    positions = names.bind(inputs, *tables)
    if positions is None:
        if model.states:
            raise refuse_states(model)
        warn(f"inputs of model '{model.name}' are bound in the order of the configuration")
        positions = list(range(len(inputs)))
    if len(set(positions)) < len(positions):
        raise refuse(model, f"two of the inputs {', '.join(inputs)} are for the same argument")
    return positions


def refuse_states(model: ModelSpec) -> BackendError:
    """States that cannot be told from other inputs and outputs."""
    return BackendError(
        ErrorCode.INVALID_ARG,
        f"PyTorch model '{model.name}' is using sequence batching with state but not all inputs and outputs follow "
        "the <name>__<index> naming convention. ",
    )


def check_tensors(model: ModelSpec, supported: frozenset[str]) -> None:
    """Whether PyTorch can take and give what the configuration declares. Raises BackendError."""
    for kind, specs in (("input", model.fed if model.inputs else ()), ("output", model.all_outputs)):
        for spec in specs:
            _check_tensor(model, kind, spec, supported)


def _check_tensor(model: ModelSpec, kind: str, spec: TensorSpec, supported: frozenset[str]) -> None:
    if spec.datatype not in supported:
        raise refuse(model, f"unsupported datatype {spec.data_type} for {kind} '{spec.name}'")
    if spec.datatype == "BYTES" and len(spec.dims) + bool(model.max_batch_size) > 1:
        raise refuse(
            model,
            f"Triton only supports 1 dimensional List of String as {kind} for '{spec.name}' for model '{model.name}'",
        )


def _positional(inputs: Sequence[str], positions: Sequence[int], argument_names: Sequence[str]) -> Call:
    places = dict(zip(inputs, positions, strict=True))

    def call(values: Mapping[str, Any]) -> tuple[Sequence[Any], Mapping[str, Any]]:
        by_place = {places[name]: value for name, value in values.items()}
        if sorted(by_place) == list(range(len(by_place))):
            return [by_place[place] for place in range(len(by_place))], {}
        return (), {argument_names[place]: value for place, value in by_place.items()}  # some have been left out

    return call


def _contained(model: ModelSpec, arguments: Sequence[Argument], container: Argument, inputs: list[str]) -> Signature:
    """All inputs in one dictionary or list."""
    what = "dictionary" if container.kind == DICTIONARY else "list of tensors"
    if len(arguments) > 1:
        raise refuse(model, f"a model that takes a {what} must not take anything else")
    if not inputs:
        raise refuse(
            model,
            "model configuration must contain at least one input, none were specified: "
            + ("they are the keys of the dictionary that the model takes" if container.kind == DICTIONARY else what),
        )
    if container.kind == DICTIONARY:
        return Signature(lambda values: ([dict(values)], {}), inputs)
    places = names.indexes(inputs) or list(range(len(inputs)))
    order = [name for _, name in sorted(zip(places, inputs, strict=True))]
    return Signature(lambda values: ([[values[name] for name in order if name in values]], {}), inputs)


def _check(model: ModelSpec, arguments: Sequence[Argument], count: int, is_open: bool) -> None:
    for argument in arguments:
        if argument.kind not in (TENSOR, TEXTS):
            raise refuse(
                model,
                f"argument '{argument.name}' of forward has type {argument.kind}, "
                f"but only {TENSOR}, {TEXTS}, {DICTIONARY} and {TENSORS} are supported",
            )
    required = sum(not argument.has_default for argument in arguments)
    if count and count < required:
        raise refuse(model, f"configuration expects {count} inputs, model provides at least {required}")
    if count > len(arguments) and not is_open:
        raise refuse(model, f"configuration expects {count} inputs, model provides at most {len(arguments)}")
