"""The gRPC server: the RPCs of both services as generic handlers, on a socket of their own."""

from collections.abc import Awaitable, Mapping
from typing import Any, TypeAlias, TypeVar

import grpc
import grpc.aio
from google.protobuf.message_factory import GetMessageClass

from broker.child import Place
from broker.client import Client
from frontends.errors import GRPC_STATUS, RequestError
from frontends.extensions import EXTENSIONS
from frontends.grpc import queries
from frontends.grpc.channel import COMPRESSION, channel_arguments
from frontends.grpc.infer import infer
from frontends.grpc.messages import ProtoMessage, message, pool
from frontends.grpc.queries import Query

INFERENCE = "inference.GRPCInferenceService"
HEALTH = "grpc.health.v1.Health"

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handlers: TypeAlias = "dict[str, grpc.RpcMethodHandler[Any, Any]]"
Answer = TypeVar("Answer")


class GrpcServer:
    """The running server; see `frontends.lifecycle.Server`."""

    def __init__(self, server: grpc.aio.Server) -> None:
        """`server` has been started."""
        self._server = server

    async def drain(self, seconds: float) -> None:
        """Refuse new calls, let those under way finish for `seconds` at most, then cancel them."""
        await self._server.stop(seconds)


async def serve(client: Client, options: dict[str, Any], _place: Place) -> GrpcServer:
    """Start serving on the options' address and port. Raises OSError when the port is taken."""
    server = grpc.aio.server(options=channel_arguments(options))
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(INFERENCE, inference_handlers(client, options)),
            grpc.method_handlers_generic_handler(HEALTH, _query_handlers(client, HEALTH, queries.HEALTH)),
        )
    )
    address = socket_address(options["grpc_address"], options["grpc_port"])
    try:
        server.add_insecure_port(address)
    except RuntimeError:
        raise OSError(f"Socket '{address}' already in use") from None
    await server.start()
    return GrpcServer(server)


def socket_address(host: str, port: int) -> str:
    """Where gRPC is to listen; it wants brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def inference_handlers(client: Client, options: Mapping[str, Any]) -> Handlers:
    """The RPCs of the inference service; those that are missing are UNIMPLEMENTED."""
    compression = COMPRESSION[options["grpc_infer_response_compression_level"]]
    metadata = message("inference.ServerMetadataResponse")(
        name=options["id"], version=options["version"], extensions=EXTENSIONS
    )

    async def model_infer(request: bytes, context: Context) -> bytes:
        if compression is not grpc.Compression.NoCompression:
            context.set_compression(compression)
        return await _or_abort(infer(client, request), context)

    async def server_metadata(_request: bytes, _context: Context) -> ProtoMessage:
        return metadata

    return {
        # From bytes to bytes: protobuf would copy the tensors several times.
        "ModelInfer": grpc.unary_unary_rpc_method_handler(model_infer),
        "ServerMetadata": grpc.unary_unary_rpc_method_handler(
            server_metadata, response_serializer=type(metadata).SerializeToString
        ),
        **_query_handlers(client, INFERENCE, queries.INFERENCE),
    }


def _query_handlers(client: Client, service: str, table: Mapping[str, Query]) -> Handlers:
    methods = pool().FindServiceByName(service).methods_by_name
    return {
        name: _query_handler(
            client, query, GetMessageClass(methods[name].input_type), GetMessageClass(methods[name].output_type)
        )
        for name, query in table.items()
    }


def _query_handler(
    client: Client, query: Query, request_class: type[Any], response_class: type[Any]
) -> "grpc.RpcMethodHandler[Any, Any]":
    async def call(request: ProtoMessage, context: Context) -> ProtoMessage:
        return await _or_abort(queries.answer(client, query, request, response_class()), context)

    return grpc.unary_unary_rpc_method_handler(call, request_class.FromString, response_class.SerializeToString)


async def _or_abort(answering: Awaitable[Answer], context: Context) -> Answer:
    """The answer; a RequestError ends the call with its status and text."""
    try:
        return await answering
    except RequestError as error:
        await context.abort(grpc.StatusCode[GRPC_STATUS[error.code]], error.message)
