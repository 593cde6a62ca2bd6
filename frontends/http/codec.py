"""The JSON part of inference requests and responses, with the binary tensors behind it. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from broker.messages import ErrorCode, Response, Target
from frontends import shared_memory
from frontends.classification import Classes, classify
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

_MAX_BYTE_SIZE = 2**64 - 1
_REGION = "shared_memory_region"
_SOURCES = ("data", "binary_data_size", _REGION)
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


class Output(NamedTuple):
    """How a client wants an output: in binary or as JSON, all of it or its `classes` highest values, or in `target`."""

    is_binary: bool = False
    classes: int = 0
    target: Target | None = None


_AS_JSON = Output()


class Selection(NamedTuple):
    """Which outputs are wanted: those `listed` as they say; none listed means all, in binary or not."""

    listed: Mapping[str, Output]
    is_binary: bool

    def of(self, name: str) -> Output:
        """How the output is wanted."""
        return self.listed.get(name, _AS_JSON) if self.listed else Output(self.is_binary)

    @property
    def has_classes(self) -> bool:
        """Whether an output is to be classified."""
        return any(output.classes for output in self.listed.values())

    @property
    def targets(self) -> tuple[Target, ...]:
        """Where outputs are wanted in the client's memory."""
        return tuple([output.target for output in self.listed.values() if output.target is not None])


class Request(NamedTuple):
    """What the JSON part of a request says."""

    request_id: str
    parameters: RequestParameters
    inputs: list[Input | TensorRef]  # references for those in the client's memory
    selection: Selection


def decode_request(document: Any, binary: Buffer, model: str, limit: int) -> Request:
    """Read a parsed request whose binary section is `binary`. Raises RequestError for the first thing wrong.

    `limit` bounds the bytes of a tensor that comes as JSON.
    """
    members = document if is_object(document) else {}
    request_id = string(members["id"], "id") if "id" in members else ""
    parameters, is_binary = _decode_parameters(members)
    inputs: list[Input | TensorRef] = []
    position = 0
    for entry in array(member(members, "inputs"), "inputs"):
        given = _decode_input(entry, binary, position, model, limit)
        if isinstance(given, Input) and given.start >= 0:
            position += len(given.data)
        inputs.append(given)
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
        return custom_parameter(name, value)


_PARAMETERS = _JsonParameters()


def custom_parameter(name: str, value: Any) -> str | int | float | bool:
    """A parameter that only the model understands. Raises RequestError."""
    string(name, "parameters")
    if type(value) is str:
        return string(value, name)
    if type(value) is int and not -(2**63) <= value < 2**63:
        try:
            return float(value)
        except OverflowError:  # beyond the largest double
            raise unreadable("parameters", "Number too big to be stored in double.") from None
    if isinstance(value, int | float):
        return value
    raise _invalid(f"parameter '{name}' has invalid type. It should be either 'int', 'bool', or 'string'.")


def _decode_parameters(members: Members) -> tuple[RequestParameters, bool]:
    """The request's parameters, and whether outputs that it does not list are wanted in binary."""
    if "parameters" not in members:
        return NO_PARAMETERS, False
    given = members["parameters"]
    if not is_object(given):
        text = "failed to get request params.: attempt to get members for non-object"
        raise RequestError(ErrorCode.INTERNAL, text)
    is_binary = given.pop("binary_data_output", False)
    return read(given.items(), _PARAMETERS), boolean(is_binary, "binary_data_output")


# ------------------------------------------------------------------------------------------- inputs and outputs


def _decode_input(entry: Any, binary: Buffer, position: int, model: str, limit: int) -> Input | TensorRef:
    """One of `inputs`; binary data begins at `position`."""
    members = entry if is_object(entry) else {}
    parameters = _parameters_of(members)
    source = _source(members, parameters)
    name = string(member(members, "name"), "name")
    datatype = string(member(members, "datatype"), "datatype")
    shape = tuple([unsigned(dim, "shape") for dim in array(member(members, "shape"), "shape")])
    if source == _REGION:
        return shared_memory.reference(name, datatype, shape, *_range(parameters))
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


def _range(parameters: Members) -> tuple[str, int, int]:
    """The region, offset and size that the parameters of a tensor in the client's memory name.

    A size that is missing is more than any region has.
    """
    region = string(parameters[_REGION], _REGION)
    offset = unsigned(parameters.get("shared_memory_offset", 0), "shared_memory_offset")
    byte_size = parameters.get("shared_memory_byte_size", _MAX_BYTE_SIZE)
    return region, offset, unsigned(byte_size, "shared_memory_byte_size")


def _decode_outputs(value: Any) -> dict[str, Output]:
    """The requested outputs by name."""
    listed: dict[str, Output] = {}
    for entry in array(value, "outputs"):
        members = entry if is_object(entry) else {}
        name = string(member(members, "name"), "name")
        if name in listed:
            raise _invalid(f"output '{name}' already exists in request")
        listed[name] = _decode_output(name, _parameters_of(members))
    return listed


def _decode_output(name: str, parameters: Members) -> Output:
    if not parameters:
        return _AS_JSON
    classes = parameters.get("classification", 0)
    if not is_unsigned(classes):
        text = "attempt to access JSON non-unsigned-integer as unsigned-integer"
        raise RequestError(ErrorCode.INTERNAL, f"Unable to set 'classification': {text}")
    is_binary = boolean(parameters.get("binary_data", False), "binary_data")
    if _REGION not in parameters:
        return Output(is_binary, classes)
    region, offset, byte_size = _range(parameters)
    for other, is_set in (("classification", classes), ("binary_data", is_binary)):
        if is_set:
            raise _invalid(f"Output can't set both '{_REGION}' and '{other}'")
    return Output(target=shared_memory.target(name, region, offset, byte_size))


# ------------------------------------------------------------------------------------------- responses


class Reply(NamedTuple):
    """A response's JSON part and its binary section, in order."""

    text: bytes
    blobs: list[bytes]


def encode_response(
    response: Response, outputs: Sequence[bytes], request_id: str, selection: Selection, classes: Classes | None
) -> Reply:
    """A successful response whose outputs' bytes are `outputs`, nothing for those in the client's memory.

    `classes` is needed when an output is to be classified. Raises RequestError.
    """
    document: Members = {"id": request_id} if request_id else {}
    document["model_name"] = response.model
    document["model_version"] = str(response.version)
    if response.parameters:
        document["parameters"] = {name: encode_parameter(name, value) for name, value in response.parameters.items()}
    blobs: list[bytes] = []
    document["outputs"] = [
        _encode_output(ref, data, selection.of(ref.name), classes, blobs)
        for ref, data in zip(response.outputs, outputs, strict=True)
    ]
    return Reply(dump(document), blobs)


def _encode_output(ref: TensorRef, data: bytes, wanted: Output, classes: Classes | None, blobs: list[bytes]) -> Members:
    """An output's entry; its bytes are added to `blobs` when they are wanted in binary."""
    if wanted.classes and classes is not None:
        ref = classify(ref, data, wanted.classes, classes)
        data = ref.data or b""
    entry: Members = {"name": ref.name, "datatype": ref.datatype, "shape": ref.shape}
    if shared_memory.is_in_client_memory(ref):
        return entry
    if wanted.is_binary:
        entry["parameters"] = {"binary_data_size": len(data)}
        blobs.append(data)
    else:
        entry["data"] = orjson.Fragment(encode_data(ref, data))
    return entry


def encode_data(ref: TensorRef, data: bytes) -> bytes:
    """An output's flat JSON array. Raises RequestError."""
    try:
        return encode_values(ref.name, ref.datatype, data)
    except ValueError as error:
        raise RequestError(ErrorCode.INTERNAL, f"output '{ref.name}' is malformed: {error}") from None


def encode_parameter(name: str, value: Any) -> orjson.Fragment:
    """The value of a response's parameter. Raises RequestError."""
    if not isinstance(value, str | int | float):
        raise RequestError(ErrorCode.UNSUPPORTED, f"response parameter '{name}' has a type that JSON cannot carry")
    return orjson.Fragment(dump_leniently(value))


def _invalid(text: str) -> RequestError:
    return RequestError(ErrorCode.INVALID_ARG, text)
