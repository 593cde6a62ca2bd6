"""Handlers end a call with the right status and compress what they are told to."""

import asyncio
from typing import Any, NoReturn

import grpc
import pytest

from frontends.grpc.server import inference_handlers, socket_address


class Aborted(Exception):
    """What `Context.abort` raises."""


class Context:
    """What a handler uses of grpc's context of a call."""

    def __init__(self) -> None:
        self.compression: list[grpc.Compression] = []

    def set_compression(self, compression: grpc.Compression) -> None:
        self.compression.append(compression)

    async def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        raise Aborted(code, details)


def options(level: str = "none") -> dict[str, Any]:
    return {"id": "name", "version": "1.2", "grpc_infer_response_compression_level": level}


@pytest.mark.parametrize(
    ("level", "compression"),
    [
        ("none", []),
        ("low", [grpc.Compression.Gzip]),
        ("medium", [grpc.Compression.Deflate]),
        ("high", [grpc.Compression.Deflate]),
    ],
)
def test_the_level_selects_the_compression_of_inference(level: str, compression: list[grpc.Compression]) -> None:
    no_client: Any = None
    handler: Any = inference_handlers(no_client, options(level))["ModelInfer"]
    context = Context()
    with pytest.raises(Aborted) as caught:
        asyncio.run(handler.unary_unary(b"\xff", context))
    assert caught.value.args[0] == grpc.StatusCode.INTERNAL
    assert caught.value.args[1].startswith("failed to parse the request message: ")
    assert context.compression == compression


@pytest.mark.parametrize(
    ("host", "address"), [("0.0.0.0", "0.0.0.0:80"), ("localhost", "localhost:80"), ("::1", "[::1]:80")]
)
def test_an_ipv6_address_is_put_into_brackets(host: str, address: str) -> None:
    assert socket_address(host, 80) == address
