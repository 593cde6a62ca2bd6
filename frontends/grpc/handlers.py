"""The services as gRPC wants them: a handler for each RPC, which turns a RequestError into the call's status."""

from collections.abc import AsyncIterable, Awaitable, Callable, Mapping
from typing import Any, TypeAlias

import grpc
import grpc.aio
from google.protobuf.json_format import ParseDict
from google.protobuf.message_factory import GetMessageClass

from frontends.errors import GRPC_STATUS, RequestError
from frontends.grpc import reflection
from frontends.grpc.infer import infer
from frontends.grpc.messages import ProtoMessage, parse, pool
from frontends.grpc.queries import HEALTH, QUERIES, Rpc
from frontends.grpc.regions import REGIONS
from frontends.grpc.repository import REPOSITORY
from frontends.grpc.requests import Metadata
from frontends.grpc.restricted import check
from frontends.grpc.service import Service
from frontends.grpc.settings import SETTINGS
from frontends.grpc.stream import Streams
from frontends.restricted import Restrictions

INFERENCE_SERVICE = "inference.GRPCInferenceService"
HEALTH_SERVICE = "grpc.health.v1.Health"

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handlers: TypeAlias = "dict[str, grpc.RpcMethodHandler[Any, Any]]"
Serve: TypeAlias = Callable[[Any, Context, Metadata], Awaitable[Any]]
"""Serves a call, given its request, or its requests where they are a stream. May raise RequestError."""


def services(
    service: Service, streams: Streams, restrictions: Restrictions
) -> "tuple[grpc.GenericRpcHandler[Any, Any], ...]":
    """All services, with all their RPCs; others are UNIMPLEMENTED."""
    listed = (INFERENCE_SERVICE, HEALTH_SERVICE, reflection.SERVICE)
    reflecting = {"ServerReflectionInfo": reflection.handler(listed)}
    handlers = {
        INFERENCE_SERVICE: {
            **inference_handlers(service, streams, restrictions),
            **_handlers(INFERENCE_SERVICE, QUERIES | REPOSITORY | REGIONS | SETTINGS, service, restrictions),
        },
        HEALTH_SERVICE: _handlers(HEALTH_SERVICE, HEALTH, service, restrictions),
        reflection.SERVICE: reflecting,
        reflection.OLD_SERVICE: reflecting,
    }
    return tuple([grpc.method_handlers_generic_handler(name, rpcs) for name, rpcs in handlers.items()])


def inference_handlers(service: Service, streams: Streams, restrictions: Restrictions) -> Handlers:
    """The RPCs that infer. They go from bytes to bytes: protobuf would copy the tensors several times."""

    async def model_infer(request: bytes, context: Context, metadata: Metadata) -> bytes:
        return await infer(service, request, metadata, context.add_done_callback)

    async def model_stream_infer(requests: AsyncIterable[bytes], context: Context, metadata: Metadata) -> None:
        await context.send_initial_metadata(())  # a status cannot overtake it, as it could with the first message
        await streams.serve(requests, context.write, metadata)

    return {
        "ModelInfer": grpc.unary_unary_rpc_method_handler(_guarded("ModelInfer", model_infer, restrictions)),
        "ModelStreamInfer": grpc.stream_stream_rpc_method_handler(
            _guarded("ModelStreamInfer", model_stream_infer, restrictions)
        ),
    }


def _handlers(of: str, table: Mapping[str, Rpc], service: Service, restrictions: Restrictions) -> Handlers:
    methods = pool().FindServiceByName(of).methods_by_name
    handlers: Handlers = {}
    for name, rpc in table.items():
        request, response = (GetMessageClass(t) for t in (methods[name].input_type, methods[name].output_type))
        handlers[name] = grpc.unary_unary_rpc_method_handler(
            _guarded(name, _answering(rpc, service, request, response), restrictions),
            response_serializer=response.SerializeToString,
        )
    return handlers


def _answering(rpc: Rpc, service: Service, request: type[Any], response: type[Any]) -> Serve:
    async def serve(data: bytes, _context: Context, _metadata: Metadata) -> ProtoMessage:
        return ParseDict(await rpc(service, parse(request, data)), response())

    return serve


def _guarded(name: str, serve: Serve, restrictions: Restrictions) -> Callable[[Any, Context], Awaitable[Any]]:
    async def call(request: Any, context: Context) -> Any:
        metadata = dict(context.invocation_metadata() or ())
        try:
            check(restrictions, name, metadata)
            return await serve(request, context, metadata)
        except RequestError as error:
            refusal = error
        return await context.abort(grpc.StatusCode[GRPC_STATUS[refusal.code]], refusal.message)

    return call
