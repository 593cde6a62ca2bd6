"""The tensors of a ModelInferRequest in binary form: from raw contents as they are, from typed contents converted."""

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from broker.messages import ErrorCode
from frontends.errors import RequestError
from frontends.grpc.messages import ProtoMessage
from frontends.grpc.places import read_place
from frontends.shared_memory import reference
from shm import copies
from shm.arena import Buffer
from shm.datatypes import DATATYPES
from shm.ref import TensorRef
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


def input_tensors(request: ProtoMessage, raw: Sequence[Buffer]) -> list[InputTensor | TensorRef]:
    """The inputs of a request whose raw contents are `raw`. Raises RequestError.

    An input in the client's shared memory is a reference already, and has no raw contents. With any raw contents no
    input may have typed ones; raw contents that no input needs are ignored.
    """
    model = request.model_name
    remaining = iter(raw)
    inputs: list[InputTensor | TensorRef] = []
    for tensor in request.inputs:
        place = read_place(tensor) if tensor.parameters else None
        has_contents = tensor.HasField("contents")
        if place is not None and has_contents:
            raise _invalid(
                f"unexpected 'content' provided when using shared memory for input tensor '{tensor.name}' for model "
                f"'{model}'"
            )
        shape = tuple(tensor.shape)
        if place is not None:
            inputs.append(reference(tensor.name, tensor.datatype, shape, *place))
        elif has_contents and raw:
            raise _invalid(
                f"contents field must not be specified when using raw_input_contents for '{tensor.name}' for model "
                f"'{model}'"
            )
        else:
            data = _typed_contents(tensor, model) if has_contents else next(remaining, None)
            if data is None:
                raise _invalid(f"unable to find data for input tensor '{tensor.name}' for model '{model}' in request.")
            inputs.append(InputTensor(tensor.name, tensor.datatype, shape, data))
    return inputs


def _typed_contents(tensor: ProtoMessage, model: str) -> bytes:
    data = b""
    for descriptor, values in tensor.contents.ListFields():
        field = _FIELDS[descriptor.name]
        unexpected = f"unexpected explicit tensor data for input tensor '{tensor.name}' for model '{model}'"
        if data:
            raise _invalid(f"{unexpected}, binary data was already supplied.")
        if tensor.datatype not in field.accepted_for:
            expected = tensor.datatype if tensor.datatype in DATATYPES else "<invalid>"
            raise _invalid(f"{unexpected} of type '{field.datatype}', expected datatype '{expected}'")
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
