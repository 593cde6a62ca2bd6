"""The RPCs that only ask the broker: what each one asks, and how the answer reads as JSON of the response message."""

from collections.abc import Callable
from typing import Any, NamedTuple

from google.protobuf.json_format import ParseDict

from broker.client import Client
from broker.messages import (
    ErrorCode,
    GetModelConfig,
    GetModelMetadata,
    GetModelReady,
    GetServerReady,
    GetStatistics,
    Message,
)
from frontends.errors import RequestError
from frontends.grpc.messages import ProtoMessage
from frontends.grpc.version import parse_version


class Query(NamedTuple):
    """`ask` makes the question from its number and the request; `tell` makes the response from the answer."""

    ask: Callable[[int, ProtoMessage], Message]
    tell: Callable[[Any], dict[str, Any]]


INFERENCE = {
    "ServerLive": Query(lambda n, _: GetServerReady(n), lambda content: {"live": content["live"]}),
    "ServerReady": Query(lambda n, _: GetServerReady(n), lambda content: {"ready": content["ready"]}),
    "ModelReady": Query(lambda n, r: GetModelReady(n, r.name, parse_version(r.version)), dict),
    "ModelMetadata": Query(lambda n, r: GetModelMetadata(n, r.name, parse_version(r.version)), dict),
    "ModelConfig": Query(
        lambda n, r: GetModelConfig(n, r.name, parse_version(r.version)), lambda content: {"config": content}
    ),
    "ModelStatistics": Query(lambda n, r: GetStatistics(n, r.name, parse_version(r.version)), dict),
}
"""By the name of the RPC in `inference.GRPCInferenceService`."""

HEALTH = {
    "Check": Query(
        lambda n, _: GetServerReady(n),
        lambda content: {"status": "SERVING" if content["ready"] else "NOT_SERVING"},
    ),
}
"""By the name of the RPC in `grpc.health.v1.Health`."""


async def answer(client: Client, query: Query, request: ProtoMessage, response: ProtoMessage) -> ProtoMessage:
    """Fill `response` with the broker's answer. Raises RequestError."""
    number = client.number()
    answer = await client.ask(query.ask(number, request), number)
    if answer.code != ErrorCode.OK:
        raise RequestError(answer.code, answer.error)
    return ParseDict(query.tell(answer.content), response)
