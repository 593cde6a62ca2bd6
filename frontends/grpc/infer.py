"""ModelInfer: one request, one response."""

import time
from collections.abc import Callable
from typing import Any, TypeAlias

from broker.messages import Part
from frontends.grpc.requests import Metadata, prepare
from frontends.grpc.responses import answer_with
from frontends.grpc.service import Service
from frontends.grpc.wire import join_response, split_request

AtEnd: TypeAlias = Callable[[Any], None]
ENDPOINT = "ModelInfer RPC"
"""What a client is told cannot serve a decoupled model."""


async def infer(service: Service, data: bytes, metadata: Metadata, at_end: AtEnd) -> bytes:
    """Serve one ModelInferRequest and return the ModelInferResponse, both in wire form. Raises RequestError.

    `at_end` has something done when the response has left.
    """
    request, raw = split_request(data)
    inference = await prepare(service, request, raw, metadata, ENDPOINT)
    response = await service.client.infer(inference.infer, inference.blocks)
    try:
        if response.part & Part.TRACED:
            began = time.monotonic_ns()
            at_end(lambda _: service.client.delivered(response, began))
        return join_response(*await answer_with(service, request.id, response, inference.classes))
    finally:
        service.client.done_with(response.outputs)
