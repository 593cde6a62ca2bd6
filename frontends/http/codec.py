"""The JSON part of inference requests and responses, with the binary tensors behind it. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from broker.messages import ErrorCode, Response
from frontends.errors import RequestError
from frontends.http.documents import (
    Members,
    array,
    boolean,
    dump,
    dump_leniently,
    is_object,
    is_unsigned,
    member,
    string,
    unreadable,
    unsigned,
)
from frontends.http.values import decode_values, encode_values
from frontends.parameters import NO_PARAMETERS, RequestParameters, read
from shm.arena import Buffer
from shm.ref import TensorRef

_SOURCES = ("data", "binary_data_size", "shared_memory_region")
_ONE_SOURCE = (
    "Input must set only one of the following fields: 'data', 'binary_data_size' in 'parameters', "
    "'shared_memory_region' in 'parameters'. But "
)


class Input(NamedTuple):
    """An input's description and bytes. `start` is where they begin in the binary section, -1 for JSON data."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Buffer
    start: int


class Selection(NamedTuple):
    """Which outputs are wanted in binary: those `listed` as they say (empty: all outputs), else `is_binary`."""

    listed: Mapping[str, bool]
    is_binary: bool


class Request(NamedTuple):
    """What the JSON part of a request says."""

    request_id: str
    parameters: RequestParameters
    inputs: list[Input]
    selection: Selection


def decode_request(document: Any, binary: Buffer, model: str, limit: int) -> Request:
    """Read a parsed request whose binary section is `binary`. Raises RequestError for the first thing wrong.

    `limit` bounds the bytes of a tensor that comes as JSON.
    """
    members = document if is_object(document) else {}
    request_id = string(members["id"], "id") if "id" in members else ""
    parameters, is_binary = _decode_parameters(members)
    inputs: list[Input] = []
    position = 0
    for entry in array(member(members, "inputs"), "inputs"):
        inputs.append(_decode_input(entry, binary, position, model, limit))
        if inputs[-1].start >= 0:
            position += len(inputs[-1].data)
    if position != len(binary):
        raise _invalid(f"unexpected additional input data for model '{model}'")
    listed = _decode_outputs(members["outputs"]) if "outputs" in members else {}
    return Request(request_id, parameters, inputs, Selection(listed, is_binary))


# ------------------------------------------------------------------------------------------- parameters


class _JsonParameters:
    """Reads JSON parameter values; see `frontends.parameters.Reader`."""

    reserved = "parameter keys starting with 'triton_' are reserved for Triton usage and should not be specified."

    def correlation_id(self, name: str, value: Any) -> int | str:
        return value if is_unsigned(value) else string(value, name)

    def flag(self, name: str, value: Any) -> bool:
        return boolean(value, name)

    def priority(self, name: str, value: Any) -> int:
        return unsigned(value, name)

    def timeout(self, name: str, value: Any) -> int:
        return unsigned(value, name)

    def custom(self, name: str, value: Any) -> str | int | float | bool:
        string(name, "parameters")
        if type(value) is str:
            return string(value, name)
        if type(value) is int:
            return value if -(2**63) <= value < 2**63 else float(value)
        if type(value) is bool or type(value) is float:
            return value
        raise _invalid(f"parameter '{name}' has invalid type. It should be either 'int', 'bool', or 'string'.")


_PARAMETERS = _JsonParameters()


def _decode_parameters(members: Members) -> tuple[RequestParameters, bool]:
    """The request's parameters, and whether outputs that it does not list are wanted in binary."""
    if "parameters" not in members:
        return NO_PARAMETERS, False
    given = members["parameters"]
    if not is_object(given):
        text = "failed to get request params.: attempt to get members for non-object"
        raise RequestError(ErrorCode.INTERNAL, text)
    is_binary = given.pop("binary_data_output", False)
    try:
        return read(given.items(), _PARAMETERS), boolean(is_binary, "binary_data_output")
    except OverflowError:  # an integer beyond the largest double
        raise unreadable("parameters", "Number too big to be stored in double.") from None


# ------------------------------------------------------------------------------------------- inputs and outputs


def _decode_input(entry: Any, binary: Buffer, position: int, model: str, limit: int) -> Input:
    """One of `inputs`; binary data begins at `position`."""
    members = entry if is_object(entry) else {}
    parameters = _parameters_of(members)
    source = _source(members, parameters)
    name = string(member(members, "name"), "name")
    datatype = string(member(members, "datatype"), "datatype")
    shape = tuple([unsigned(dim, "shape") for dim in array(member(members, "shape"), "shape")])
    if source == "shared_memory_region":
        raise _unknown_region(string(parameters[source], source))
    if source == "data":
        return Input(name, datatype, shape, decode_values(name, datatype, shape, members[source], limit), -1)
    size = unsigned(parameters[source], source)
    missing = position + size - len(binary)
    if missing > 0:
        raise _invalid(f"unexpected size for input '{name}', expecting {missing} additional bytes for model '{model}'")
    return Input(name, datatype, shape, binary[position : position + size], position)


def _parameters_of(members: Members) -> Members:
    """The `parameters` of an input or output; anything but an object counts as none."""
    parameters = members.get("parameters")
    return parameters if is_object(parameters) else {}


def _source(members: Members, parameters: Members) -> str:
    """The one place that an input's data come from."""
    given = [s for s in _SOURCES if s in (members if s == "data" else parameters)]
    if len(given) != 1:
        text = "set " + " ".join(f"'{s}'" for s in given) if given else "no field is set"
        raise _invalid(_ONE_SOURCE + text)
    return given[0]


def _decode_outputs(value: Any) -> dict[str, bool]:
    """The requested outputs by name, and which of them are wanted in binary."""
    listed: dict[str, bool] = {}
    for entry in array(value, "outputs"):
        members = entry if is_object(entry) else {}
        name = string(member(members, "name"), "name")
        if name in listed:
            raise _invalid(f"output '{name}' already exists in request")
        listed[name] = _is_binary(name, _parameters_of(members))
    return listed


def _is_binary(name: str, parameters: Members) -> bool:
    if not parameters:
        return False
    classes = parameters.get("classification", 0)
    if not is_unsigned(classes):
        text = "attempt to access JSON non-unsigned-integer as unsigned-integer"
        raise RequestError(ErrorCode.INTERNAL, f"Unable to set 'classification': {text}")
    is_binary = boolean(parameters.get("binary_data", False), "binary_data")
    if "shared_memory_region" in parameters:
        region = string(parameters["shared_memory_region"], "shared_memory_region")
        for other, is_set in (("classification", classes), ("binary_data", is_binary)):
            if is_set:
                raise _invalid(f"Output can't set both 'shared_memory_region' and '{other}'")
        raise _unknown_region(region)
    if classes:
        text = f"'classification' is not supported, requested for output '{name}'"
        raise RequestError(ErrorCode.UNSUPPORTED, text)
    return is_binary


def _unknown_region(name: str) -> RequestError:
    return RequestError(ErrorCode.NOT_FOUND, f"Unable to find shared memory region: '{name}'")


# ------------------------------------------------------------------------------------------- responses


class Reply(NamedTuple):
    """A response's JSON part and its binary section, in order."""

    text: bytes
    blobs: list[bytes]


def encode_response(response: Response, outputs: Sequence[bytes], request_id: str, selection: Selection) -> Reply:
    """A successful response whose outputs' bytes are `outputs`. Raises RequestError."""
    document: Members = {"id": request_id} if request_id else {}
    document["model_name"] = response.model
    document["model_version"] = str(response.version)
    if response.parameters:
        document["parameters"] = _encode_parameters(response.parameters)
    blobs: list[bytes] = []
    entries = document["outputs"] = []
    for ref, data in zip(response.outputs, outputs, strict=True):
        entry: Members = {"name": ref.name, "datatype": ref.datatype, "shape": ref.shape}
        if selection.listed.get(ref.name, False) if selection.listed else selection.is_binary:
            entry["parameters"] = {"binary_data_size": len(data)}
            blobs.append(data)
        else:
            entry["data"] = orjson.Fragment(_encode_data(ref, data))
        entries.append(entry)
    return Reply(dump(document), blobs)


def _encode_data(ref: TensorRef, data: bytes) -> bytes:
    try:
        return encode_values(ref.name, ref.datatype, data)
    except ValueError as error:
        raise RequestError(ErrorCode.INTERNAL, f"output '{ref.name}' is malformed: {error}") from None


def _encode_parameters(parameters: Members) -> orjson.Fragment:
    for name, value in parameters.items():
        if not isinstance(value, str | int | float):
            raise RequestError(ErrorCode.UNSUPPORTED, f"response parameter '{name}' has a type that JSON cannot carry")
    return orjson.Fragment(dump_leniently(parameters))


def _invalid(text: str) -> RequestError:
    return RequestError(ErrorCode.INVALID_ARG, text)
