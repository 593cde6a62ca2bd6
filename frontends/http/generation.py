"""The JSON of the generate extension: inputs, parameters and outputs as members of one flat object. Pure."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from broker.messages import ErrorCode, Parameters, Response
from frontends.errors import RequestError
from frontends.http.codec import Input, custom_parameter, encode_data, encode_parameter
from frontends.http.documents import Members, dump, is_object, string
from frontends.http.values import decode_values

WRONG_COUNT = (
    "generate expects model to produce exactly 1 response, use generate stream for model that generates various number "
    "of responses"
)
_NESTED = "parameters"
_UNLIMITED = 2**63


class Declared(NamedTuple):
    """An input as the model's metadata have it; -1 in `shape` is any size."""

    datatype: str
    shape: tuple[int, ...]


class Generation(NamedTuple):
    """What a request says."""

    request_id: str
    parameters: Parameters
    inputs: list[Input]


def decode_generation(document: Any, declared: Mapping[str, Declared], limit: int) -> Generation:
    """Read a parsed request: members named like an input are tensors, the others parameters. Raises RequestError.

    `limit` bounds the bytes of all tensors together.
    """
    if not is_object(document):
        raise RequestError(ErrorCode.INTERNAL, "attempt to get members for non-object")
    if _NESTED in declared:
        text = f"Keyword '{_NESTED}' for nested schema also given as input tensor name"
        raise RequestError(ErrorCode.INVALID_ARG, text)
    request_id = string(document["id"], "id") if "id" in document and "id" not in declared else ""
    generation = Generation(request_id, {}, [])
    for name, value in document.items():
        if name == _NESTED:
            _add_nested(generation, value, declared)
        else:
            _add(generation, name, value, declared)
    _check_size(generation.inputs, limit)
    return generation


def _add_nested(generation: Generation, value: Any, declared: Mapping[str, Declared]) -> None:
    if not is_object(value):
        text = f"Expected JSON object for keyword: '{_NESTED}': attempt to access JSON non-object as object"
        raise RequestError(ErrorCode.INTERNAL, text)
    for name, inner in value.items():
        try:
            _add(generation, name, inner, declared)
        except RequestError as error:
            raise RequestError(error.code, f"Converting keyword: '{_NESTED}': {error.message}") from None


def _add(generation: Generation, name: str, value: Any, declared: Mapping[str, Declared]) -> None:
    if name not in declared:
        generation.parameters[name] = custom_parameter(name, value)
        return
    if any(given.name == name for given in generation.inputs):
        raise RequestError(ErrorCode.INVALID_ARG, f"input '{name}' already exists in request")
    values = value if type(value) is list else [value]
    datatype, dims = declared[name]
    shape = _shape(name, dims, len(values))
    data = decode_values(name, datatype, shape, values, _UNLIMITED)
    generation.inputs.append(Input(name, datatype, shape, data, -1))


def _shape(name: str, dims: Sequence[int], count: int) -> tuple[int, ...]:
    """The shape of `count` elements: the innermost dimension of any size takes them all, the others are 1."""
    fixed = math.prod(dim for dim in dims if dim != -1)
    rest, remainder = divmod(count, fixed) if fixed else (1, count)
    shape: list[int] = []
    for dim in reversed(dims):
        shape.append(rest if dim == -1 else dim)
        rest = 1 if dim == -1 else rest
    if remainder or rest != 1:
        text = f"The schema can not convert input '{name}' to tensor with proper shape"
        raise RequestError(ErrorCode.INVALID_ARG, text)
    return tuple(reversed(shape))


def _check_size(inputs: Sequence[Input], limit: int) -> None:
    total = 0
    for given in inputs:
        total += len(given.data)
        if total > limit:
            raise RequestError(
                ErrorCode.INVALID_ARG,
                f"request size of {total} bytes with input '{given.name}' of size {len(given.data)} bytes exceeds the "
                f"maximum allowed input size of {limit}. Use --http-max-input-size to increase the limit.",
            )


def encode_generation(response: Response, outputs: Sequence[bytes], request_id: str) -> bytes:
    """A successful response whose outputs' bytes are `outputs`, as one object. Raises RequestError."""
    members: Members = {"id": request_id} if request_id else {}
    members |= {"model_name": response.model, "model_version": str(response.version)}
    members |= {name: encode_parameter(name, value) for name, value in response.parameters.items()}
    for ref, data in zip(response.outputs, outputs, strict=True):
        text = encode_data(ref, data)
        members[ref.name] = orjson.Fragment(text[1:-1] if math.prod(ref.shape) == 1 else text)
    return dump(dict(sorted(members.items(), key=lambda member: member[0].encode())))


def event(text: bytes) -> bytes:
    """A server-sent event with a JSON document."""
    return b"data: %b\n\n" % text
