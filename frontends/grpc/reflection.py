"""Server reflection: what is served, for clients that have no .proto files."""

from collections.abc import AsyncIterable, AsyncIterator, Iterator

import grpc
import grpc.aio
from google.protobuf.descriptor import FileDescriptor

from frontends.errors import GRPC_STATUS, RequestError
from frontends.grpc.messages import ProtoMessage, message, parse, pool

SERVICE = "grpc.reflection.v1.ServerReflection"
OLD_SERVICE = "grpc.reflection.v1alpha.ServerReflection"
"""The same under the name that older clients ask for."""

_Request = message("grpc.reflection.v1.ServerReflectionRequest")
_Response = message("grpc.reflection.v1.ServerReflectionResponse")


def handler(services: tuple[str, ...]) -> "grpc.RpcMethodHandler[bytes, ProtoMessage]":
    """Of ServerReflectionInfo; `services` are those that are listed."""

    async def call(
        requests: AsyncIterable[bytes], context: "grpc.aio.ServicerContext[bytes, ProtoMessage]"
    ) -> AsyncIterator[ProtoMessage]:
        try:
            async for request in requests:
                yield reflect(parse(_Request, request), services)
        except RequestError as error:
            await context.abort(grpc.StatusCode[GRPC_STATUS[error.code]], error.message)

    return grpc.stream_stream_rpc_method_handler(call, response_serializer=_Response.SerializeToString)


def reflect(request: ProtoMessage, services: tuple[str, ...]) -> ProtoMessage:
    """The ServerReflectionResponse to a ServerReflectionRequest."""
    response = _Response(valid_host=request.host, original_request=request)
    try:
        match request.WhichOneof("message_request"):
            case "file_by_filename":
                _add(response, pool().FindFileByName(request.file_by_filename))
            case "file_containing_symbol":
                _add(response, _file_of(request.file_containing_symbol))
            case "list_services":
                for name in services:
                    response.list_services_response.service.add(name=name)
            case "all_extension_numbers_of_type":
                name = request.all_extension_numbers_of_type
                pool().FindMessageTypeByName(name)
                response.all_extension_numbers_response.base_type_name = name  # nothing of ours can be extended
            case "file_containing_extension":
                raise KeyError("no extensions")
            case _:
                _fail(response, grpc.StatusCode.INVALID_ARGUMENT, "the request asks for nothing")
    except KeyError as error:
        _fail(response, grpc.StatusCode.NOT_FOUND, f"not found: {error.args[0]}")
    return response


def _file_of(symbol: str) -> FileDescriptor:
    """The file that declares a symbol. Raises KeyError."""
    try:
        return pool().FindFileContainingSymbol(symbol)
    except KeyError:  # the pool does not know methods by their names
        return pool().FindServiceByName(symbol.rpartition(".")[0]).file


def _add(response: ProtoMessage, file: FileDescriptor) -> None:
    for each in _with_imports(file, set()):
        response.file_descriptor_response.file_descriptor_proto.append(each.serialized_pb)


def _with_imports(file: FileDescriptor, seen: set[str]) -> Iterator[FileDescriptor]:
    if file.name not in seen:
        seen.add(file.name)
        yield file
        for imported in file.dependencies:
            yield from _with_imports(imported, seen)


def _fail(response: ProtoMessage, status: grpc.StatusCode, text: str) -> None:
    response.error_response.error_code = status.value[0]
    response.error_response.error_message = text
