"""Programs that know the trees (of tuples, lists, dictionaries) of their arguments and results."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from torch.utils import _pytree as pytree

from workers.backends.pytorch import arguments, names, results
from workers.backends.pytorch.arguments import Call, refuse
from workers.backends.pytorch.program import Order
from workers.backends.pytorch.results import Wanted


class Trees(NamedTuple):
    """The specifications of arguments and results; the leaves that are constants, the names of the others if known."""

    arguments: Any
    results: Any
    constants: Mapping[int, Any]
    names: Sequence[str]


class Bound(NamedTuple):
    """Which input is which tensor among the arguments, and which output which leaf of the results."""

    arguments: Call
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]


def bind(order: Order, trees: Trees) -> Bound:
    """By the tensors' own names, by their places, as `ARGS[0][key]`, or by `__<index>`. Raises BackendError."""
    model = order.model
    count = trees.arguments.num_leaves
    tensors = [leaf for leaf in range(count) if leaf not in trees.constants]
    positional, keyword = pytree.tree_unflatten(list(range(count)), trees.arguments)
    places = names.addresses("ARGS", positional) | names.addresses("KWARGS", keyword)
    by_place = {place: tensors.index(leaf) for place, leaf in places.items() if leaf in tensors}
    by_name = {name: index for index, name in enumerate(trees.names)}
    inputs = [spec.name for spec in model.fed] if model.inputs else _default(trees, len(tensors))
    if len(inputs) != len(tensors):
        raise refuse(model, f"configuration expects {len(inputs)} inputs, model provides {len(tensors)}")
    found = arguments.bind(model, inputs, order.warn, by_name, by_place)
    for name, index in zip(inputs, found, strict=True):
        if index >= len(tensors):
            raise refuse(model, f"input '{name}' is for argument {index}, the model has {len(tensors)}")
    leaves = {name: tensors[index] for name, index in zip(inputs, found, strict=True)}
    template = [trees.constants.get(leaf) for leaf in range(count)]

    def call(values: Mapping[str, Any]) -> tuple[Sequence[Any], Mapping[str, Any]]:
        filled = list(template)
        for name, value in values.items():
            filled[leaves[name]] = value
        positional, keyword = pytree.tree_unflatten(filled, trees.arguments)
        return positional, keyword

    return Bound(call, dict(zip(inputs, found, strict=True)), _outputs(order, trees.results))


def wanted(order: Order, bound: Bound) -> list[Wanted]:
    """The outputs with the datatypes that the configuration declares."""
    datatypes = {spec.name: spec.datatype for spec in order.model.all_outputs}
    return [Wanted(name, datatypes.get(name, ""), place) for name, place in bound.outputs.items()]


def flat(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with the leaves of its result."""
    return lambda *positional, **keyword: tuple(pytree.tree_leaves(function(*positional, **keyword)))


def _default(trees: Trees, count: int) -> list[str]:
    return list(trees.names) or [f"INPUT__{index}" for index in range(count)]


def _outputs(order: Order, spec: Any) -> dict[str, int]:
    model = order.model
    tree = pytree.tree_unflatten(list(range(spec.num_leaves)), spec)
    is_flat = isinstance(tree, Mapping) and all(isinstance(value, int) for value in tree.values())
    keys = {str(key): leaf for key, leaf in tree.items()} if is_flat else {}
    if not model.outputs:
        return keys or {output.name: index for index, output in enumerate(results.unnamed(spec.num_leaves))}
    outputs = results.declared(model, keys, names.addresses("RESULT", tree))
    found = {o.name: index if o.place is None else o.place for index, o in enumerate(outputs)}
    for name, place in found.items():
        if place >= spec.num_leaves:
            raise refuse(model, results.missing(name, spec.num_leaves))
    return found
