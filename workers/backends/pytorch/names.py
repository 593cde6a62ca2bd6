"""Which input is which argument, and which output which result: Triton's rules about names. Pure."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

_INDEXED = re.compile(r".+__(\d+)")
_TRACED = re.compile(r"argument_\d+")  # what TorchScript's tracer calls an argument without a name

TENSOR, TEXTS, TENSORS, DICTIONARY = "Tensor", "List[str]", "List[Tensor]", "Dict[str, Tensor]"


class Argument(NamedTuple):
    """One parameter of `forward`; `kind` is its type as TorchScript spells it."""

    name: str
    kind: str = TENSOR
    has_default: bool = False


def name_arguments(arguments: Sequence[Argument]) -> list[str]:
    """Names for inputs that the configuration does not declare: `forward`'s own, else `INPUT__0` and so on."""
    if any(_TRACED.fullmatch(argument.name) for argument in arguments):
        return [f"INPUT__{index}" for index in range(len(arguments))]
    return [argument.name for argument in arguments]


def bind(names: Sequence[str], *tables: Mapping[str, int]) -> list[int] | None:
    """The position of each name: in the first table that has all of them, else by `__<index>`; None by neither."""
    for table in tables:
        if all(name in table for name in names):
            return [table[name] for name in names]
    return indexes(names)


def indexes(names: Sequence[str]) -> list[int] | None:
    """The numbers at the end of names that all are `<text>__<number>`."""
    matches = [_INDEXED.fullmatch(name) for name in names]
    return [int(match[1]) for match in matches if match] if all(matches) else None


def addresses(root: str, tree: Any) -> dict[str, int]:
    """The numbers in a tree of tuples, lists and dictionaries by their place: `ARGS[1][key]`, `RESULT[0]`, `RESULT`."""
    if isinstance(tree, int):
        return {root: tree}
    if isinstance(tree, Mapping):
        children = [(str(key), child) for key, child in tree.items()]
    elif isinstance(tree, Sequence):
        children = [(str(index), child) for index, child in enumerate(tree)]
    else:
        return {}  # a class of the exporting program's own
    return {place: number for key, child in children for place, number in addresses(f"{root}[{key}]", child).items()}
