"""What requests must have in common to run together. Pure."""

from collections.abc import Callable, Hashable
from typing import Any, TypeAlias

from broker.request import Request
from configs.description import ModelDescription

Company: TypeAlias = Callable[[Request], Hashable]
"""Equal for requests that fit together; remembered in the request, as it is asked for often."""


def plain(request: Request) -> tuple[Any, ...]:
    """The names, datatypes and shapes of its inputs, but for the batch dimension."""
    if request.shape_key is None:
        request.shape_key = tuple([(ref.name, ref.datatype, ref.shape[1:]) for ref in request.inputs])
    return request.shape_key


def company(description: ModelDescription) -> Company:
    """What a model's requests must have in common."""
    ragged = frozenset(spec.name for spec in description.inputs if spec.ragged)
    if not ragged:
        return plain

    def common(request: Request) -> tuple[Any, ...]:
        if request.shape_key is None:
            request.shape_key = tuple(
                [(ref.name, ref.datatype, () if ref.name in ragged else ref.shape[1:]) for ref in request.inputs]
            )
        return request.shape_key

    return common
