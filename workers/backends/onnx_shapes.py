"""What shapes a graph's outputs will have, as far as its own names of dimensions tell. Pure."""

import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

Dims: TypeAlias = Sequence[int | str | None]
"""Of a graph's input or output: a size, a name that stands for the same size everywhere, or unknown."""
Recipe: TypeAlias = tuple[int | tuple[str, int], ...]
"""A shape: each dimension is a size, or that of an input in a dimension."""


def recipes(inputs: Mapping[str, Dims], outputs: Mapping[str, Dims]) -> dict[str, Recipe]:
    """How to tell the shapes of those outputs whose dimensions are all sizes, or names that an input has, too."""
    places: dict[str, tuple[str, int]] = {}
    for name, dims in inputs.items():
        for axis, dim in enumerate(dims):
            if isinstance(dim, str) and dim:
                places.setdefault(dim, (name, axis))
    found = {}
    for name, dims in outputs.items():
        recipe = [_known(dim, places) for dim in dims]
        whole = tuple(dim for dim in recipe if dim is not None)
        if len(whole) == len(recipe):
            found[name] = whole
    return found


def predict(recipe: Recipe, shapes: Mapping[str, Sequence[int]]) -> tuple[int, ...] | None:
    """The output's shape for inputs of these shapes; None when the inputs are not as the graph says."""
    found = []
    for dim in recipe:
        if isinstance(dim, int):
            found.append(dim)
            continue
        name, axis = dim
        if name not in shapes or axis >= len(shapes[name]):
            return None
        found.append(shapes[name][axis])
    return tuple(found)


def byte_size(shape: Sequence[int], element_size: int) -> int:
    """Of a tensor of this shape."""
    return math.prod(shape) * element_size


def _known(dim: int | str | None, places: Mapping[str, tuple[str, int]]) -> int | tuple[str, int] | None:
    if isinstance(dim, str):
        return places.get(dim)
    return dim if dim is not None and dim >= 0 else None
