"""RPCs that are a question to the broker: what each one asks, and how the answer reads as JSON of its response."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from broker.messages import (
    GetModelConfig,
    GetModelMetadata,
    GetModelReady,
    GetServerReady,
    GetStatistics,
    Message,
)
from frontends.extensions import EXTENSIONS
from frontends.grpc.messages import ProtoMessage
from frontends.grpc.service import Service
from frontends.versions import parse_version

Rpc: TypeAlias = Callable[[Service, ProtoMessage], Awaitable[dict[str, Any]]]
"""Serves one kind of request: its response, as JSON. Raises RequestError."""


def query(ask: Callable[[int, ProtoMessage], Message], tell: Callable[[Any], dict[str, Any]] = dict) -> Rpc:
    """`ask` makes the question from its number and the request; `tell` makes the response from the answer."""

    async def call(service: Service, request: ProtoMessage) -> dict[str, Any]:
        return tell(await service.ask(lambda number: ask(number, request)))

    return call


def nothing(_answer: Any) -> dict[str, Any]:
    """The response of an RPC that only says that it is done."""
    return {}


async def _server_metadata(service: Service, _request: ProtoMessage) -> dict[str, Any]:
    return {"name": service.server_id, "version": service.server_version, "extensions": EXTENSIONS}


QUERIES: dict[str, Rpc] = {
    "ServerLive": query(lambda n, _: GetServerReady(n), lambda content: {"live": content["live"]}),
    "ServerReady": query(lambda n, _: GetServerReady(n), lambda content: {"ready": content["ready"]}),
    "ServerMetadata": _server_metadata,
    "ModelReady": query(lambda n, r: GetModelReady(n, r.name, parse_version(r.version))),
    "ModelMetadata": query(lambda n, r: GetModelMetadata(n, r.name, parse_version(r.version))),
    "ModelConfig": query(
        lambda n, r: GetModelConfig(n, r.name, parse_version(r.version)), lambda content: {"config": content}
    ),
    "ModelStatistics": query(lambda n, r: GetStatistics(n, r.name, parse_version(r.version))),
}
"""By the name of the RPC in `inference.GRPCInferenceService`."""

HEALTH: dict[str, Rpc] = {
    "Check": query(
        lambda n, _: GetServerReady(n),
        lambda content: {"status": "SERVING" if content["ready"] else "NOT_SERVING"},
    ),
}
"""By the name of the RPC in `grpc.health.v1.Health`."""
