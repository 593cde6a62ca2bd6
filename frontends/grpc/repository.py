"""The RPCs of the model repository extension."""

from collections.abc import Mapping

from broker.messages import ErrorCode, GetRepositoryIndex, LoadModel, UnloadModel
from frontends.errors import RequestError
from frontends.grpc.messages import ProtoMessage
from frontends.grpc.queries import Rpc, nothing, query

MAX_FILES = 512 << 20
"""Bytes of the files that come with a load: they travel through the broker."""
_FILE = "file:"
"""Begins the name of a load parameter that holds a file of the model."""


def _index(number: int, request: ProtoMessage) -> GetRepositoryIndex:
    _refuse_repository(request)
    return GetRepositoryIndex(number, request.ready)


def _load(number: int, request: ProtoMessage) -> LoadModel:
    _refuse_repository(request)
    return LoadModel(number, request.model_name, *override_of(request.parameters))


def _unload(number: int, request: ProtoMessage) -> UnloadModel:
    _refuse_repository(request)
    dependents = request.parameters.get("unload_dependents")
    if dependents is not None and dependents.WhichOneof("parameter_choice") != "bool_param":
        raise _invalid("invalid value type for 'unload_dependents' parameter, expected bool_param.")
    return UnloadModel(number, request.model_name, dependents is not None and dependents.bool_param)


def override_of(parameters: Mapping[str, ProtoMessage]) -> tuple[str, dict[str, bytes]]:
    """The configuration and the files (by their path in the model's directory) of a load. Raises RequestError."""
    config = ""
    files: dict[str, bytes] = {}
    for name, value in parameters.items():
        given = value.WhichOneof("parameter_choice")
        if name == "config":
            if given != "string_param":
                raise _invalid(f"invalid value type for load parameter '{name}', expected string_param.")
            config = value.string_param
        elif name.startswith(_FILE):
            if given != "bytes_param":
                raise _invalid(f"invalid value type for load parameter '{name}', expected bytes_param.")
            files[name.removeprefix(_FILE)] = value.bytes_param
        else:
            raise _invalid(f"unrecognized load parameter '{name}'.")
    size = len(config) + sum(map(len, files.values()))
    if size > MAX_FILES:
        raise _invalid(f"a load with {size} bytes of files, the limit is {MAX_FILES}: put the model into a repository")
    return config, files


def _refuse_repository(request: ProtoMessage) -> None:
    if request.repository_name:
        raise RequestError(ErrorCode.UNSUPPORTED, "'repository_name' specification is not supported")


def _invalid(text: str) -> RequestError:
    return RequestError(ErrorCode.INVALID_ARG, text)


REPOSITORY: dict[str, Rpc] = {
    "RepositoryIndex": query(_index, lambda content: {"models": content}),
    "RepositoryModelLoad": query(_load, nothing),
    "RepositoryModelUnload": query(_unload, nothing),
}
"""By the name of the RPC in `inference.GRPCInferenceService`."""
