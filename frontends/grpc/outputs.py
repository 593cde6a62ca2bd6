"""The outputs that a client asks for: which, where to, and whether only their classes."""

from collections.abc import Mapping
from typing import NamedTuple

from broker.messages import ErrorCode, Target
from frontends.errors import RequestError
from frontends.grpc.messages import ProtoMessage
from frontends.grpc.places import read_place
from frontends.shared_memory import target

CLASSIFICATION = "classification"


class RequestedOutputs(NamedTuple):
    """`names` empty asks for all; `targets` go to the client's memory; `classes` is how many, by name of the output."""

    names: tuple[str, ...]
    targets: tuple[Target, ...]
    classes: Mapping[str, int]


ALL = RequestedOutputs((), (), {})


def requested_outputs(request: ProtoMessage) -> RequestedOutputs:
    """What a ModelInferRequest says about its outputs. Raises RequestError."""
    if not request.outputs:
        return ALL
    targets: list[Target] = []
    classes: dict[str, int] = {}
    for output in request.outputs:
        place = read_place(output)
        if CLASSIFICATION in output.parameters:
            classes[output.name] = _count(output.parameters[CLASSIFICATION])
            if place is not None:
                text = "output can't set both 'shared_memory_region' and 'classification'"
                raise RequestError(ErrorCode.INVALID_ARG, text)
        if place is not None:
            targets.append(target(output.name, *place))
    return RequestedOutputs(tuple([output.name for output in request.outputs]), tuple(targets), classes)


def _count(parameter: ProtoMessage) -> int:
    if parameter.WhichOneof("parameter_choice") != "int64_param":
        text = f"invalid value type for '{CLASSIFICATION}' parameter, expected int64_param"
        raise RequestError(ErrorCode.INVALID_ARG, text)
    if parameter.int64_param <= 0:
        text = f"invalid value for '{CLASSIFICATION}' parameter, expected >= 0"
        raise RequestError(ErrorCode.INVALID_ARG, text)
    return int(parameter.int64_param)
