"""ModelInfer: one request, one response."""

from frontends.grpc.requests import Metadata, prepare
from frontends.grpc.responses import answer_with
from frontends.grpc.service import Service
from frontends.grpc.wire import join_response, split_request

ENDPOINT = "ModelInfer RPC"
"""What a client is told cannot serve a decoupled model."""


async def infer(service: Service, data: bytes, metadata: Metadata) -> bytes:
    """Serve one ModelInferRequest and return the ModelInferResponse, both in wire form. Raises RequestError."""
    request, raw = split_request(data)
    inference = await prepare(service, request, raw, metadata, ENDPOINT)
    response = await service.client.infer(inference.infer, inference.blocks)
    try:
        return join_response(*await answer_with(service, request.id, response, inference.classes))
    finally:
        service.client.done_with(response.outputs)
