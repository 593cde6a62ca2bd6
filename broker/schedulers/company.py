"""What requests must have in common to run together. Pure."""

from collections.abc import Callable
from typing import Any, TypeAlias

from broker.request import Request
from configs.description import ModelDescription, Padding, TensorSpec
from shm.ref import TensorRef

Company: TypeAlias = Callable[[Request], tuple[Any, ...]]
"""Equal for requests that fit together; remembered in the request, as it is asked for often."""


def plain(request: Request) -> tuple[Any, ...]:
    """The names, datatypes and shapes of its inputs, but for the batch dimension."""
    if request.shape_key is None:
        request.shape_key = tuple([(ref.name, ref.datatype, ref.shape[1:]) for ref in request.inputs])
    return request.shape_key


def company(description: ModelDescription) -> Company:
    """What a model's requests must have in common."""
    specs = {spec.name: spec for spec in description.inputs if spec.ragged or spec.padding is not None}
    key = description.batch_key
    if not specs and not key:
        return plain

    def common(request: Request) -> tuple[Any, ...]:
        if request.shape_key is None:
            shapes = [(ref.name, ref.datatype, _shape(ref, specs.get(ref.name))) for ref in request.inputs]
            request.shape_key = (repr(request.parameter(key)), *shapes)
        return request.shape_key

    return common


def is_gathered(description: ModelDescription) -> bool:
    """Whether requests that fit together are looked for behind others, which Triton's batcher never does."""
    return bool(description.batch_key) or any(spec.padding and spec.padding.buckets for spec in description.inputs)


def bucket(padding: Padding, size: int) -> int:
    """The size that requests of this size are padded to, 0 for that of the batch; beyond all buckets its own."""
    return next((limit for limit in padding.buckets if limit >= size), size) if padding.buckets else 0


def _shape(ref: TensorRef, spec: TensorSpec | None) -> tuple[int, ...]:
    """The part of an input's shape that must be equal."""
    if spec is None or spec.padding is None:
        return () if spec is not None and spec.ragged else ref.shape[1:]
    axis = spec.padding.axis
    return (*ref.shape[1:axis], bucket(spec.padding, ref.shape[axis]), *ref.shape[axis + 1 :])
