"""The tensors of a ModelInferRequest in binary form: from raw contents as they are, from typed contents converted."""

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from broker.messages import ErrorCode
from frontends.errors import RequestError
from frontends.grpc.messages import ProtoMessage
from shm import copies
from shm.arena import Buffer
from shm.datatypes import DATATYPES
from shm.tensor import NUMPY


class InputTensor(NamedTuple):
    """An input and its bytes in binary form, as the client described it: nothing is checked against the model."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Buffer


class _Field(NamedTuple):
    """A field of InferTensorContents: the datatype whose values it holds, and those it is accepted for."""

    datatype: str
    accepted_for: frozenset[str]


_FIELDS = {
    "bool_contents": _Field("BOOL", frozenset({"BOOL"})),
    "int_contents": _Field("INT32", frozenset({"INT8", "INT16", "INT32"})),
    "int64_contents": _Field("INT64", frozenset({"INT64"})),
    "uint_contents": _Field("UINT32", frozenset({"UINT8", "UINT16", "UINT32"})),
    "uint64_contents": _Field("UINT64", frozenset({"UINT64"})),
    "fp32_contents": _Field("FP32", frozenset({"FP32"})),
    "fp64_contents": _Field("FP64", frozenset({"FP64"})),
    "bytes_contents": _Field("BYTES", frozenset({"BYTES"})),
}


def input_tensors(request: ProtoMessage, raw: Sequence[Buffer]) -> list[InputTensor]:
    """The inputs of a request whose raw contents are `raw`. Raises RequestError.

    With any raw contents no input may have typed ones; raw contents that no input needs are ignored.
    """
    model = request.model_name
    remaining = iter(raw)
    inputs: list[InputTensor] = []
    for tensor in request.inputs:
        name, has_contents = tensor.name, tensor.HasField("contents")
        if "shared_memory_region" in tensor.parameters:
            if has_contents:
                raise _invalid(
                    f"unexpected 'content' provided when using shared memory for input tensor '{name}' for model "
                    f"'{model}'"
                )
            raise unknown_region(tensor)
        data: Buffer | None
        if not has_contents:
            data = next(remaining, None)
            if data is None:
                raise _invalid(f"unable to find data for input tensor '{name}' for model '{model}' in request.")
        elif raw:
            raise _invalid(
                f"contents field must not be specified when using raw_input_contents for '{name}' for model '{model}'"
            )
        else:
            data = _typed_contents(tensor, model)
        inputs.append(InputTensor(name, tensor.datatype, tuple(tensor.shape), data))
    return inputs


def output_names(request: ProtoMessage) -> tuple[str, ...]:
    """The outputs that a request asks for; none means all. Raises RequestError."""
    for output in request.outputs:
        if "shared_memory_region" in output.parameters:
            raise unknown_region(output)
        if "classification" in output.parameters:
            raise RequestError(
                ErrorCode.UNSUPPORTED,
                f"the classification of output '{output.name}' is not supported: request the output without it",
            )
    return tuple([output.name for output in request.outputs])


def unknown_region(tensor: ProtoMessage) -> RequestError:
    """The error for a tensor that is to be in a region of the client's, of which none is registered."""
    region = tensor.parameters["shared_memory_region"].string_param
    return RequestError(ErrorCode.NOT_FOUND, f"Unable to find shared memory region: '{region}'")


def _typed_contents(tensor: ProtoMessage, model: str) -> bytes:
    data = b""
    for descriptor, values in tensor.contents.ListFields():
        field = _FIELDS[descriptor.name]
        unexpected = (
            f"unexpected explicit tensor data for input tensor '{tensor.name}' for model '{model}' of type "
            f"'{field.datatype}'"
        )
        if data:
            raise _invalid(f"{unexpected}, binary data was already supplied.")
        if tensor.datatype not in field.accepted_for:
            expected = tensor.datatype if tensor.datatype in DATATYPES else "<invalid>"
            raise _invalid(f"{unexpected}, expected datatype '{expected}'")
        data = _binary_form(values, field.datatype, tensor.datatype)
        copies.count("typed contents", len(data))
    return data


def _binary_form(values: Sequence[Any], held: str, datatype: str) -> bytes:
    """Values of the datatype `held` as a tensor of `datatype`: narrower integers keep their low bits."""
    if datatype == "BYTES":
        return b"".join([part for value in values for part in (struct.pack("<I", len(value)), value)])
    return np.fromiter(values, NUMPY[held], len(values)).astype(NUMPY[datatype], copy=False).tobytes()


def _invalid(text: str) -> RequestError:
    return RequestError(ErrorCode.INVALID_ARG, text)
