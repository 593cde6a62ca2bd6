"""Handlers end a call with the right status, and only serve those who may."""

import asyncio
import logging
from typing import Any, NoReturn

import grpc
import pytest
from grpc._cython.cygrpc import ExecuteBatchError

from frontends.grpc.handlers import inference_handlers
from frontends.grpc.restricted import restrictions
from frontends.grpc.server import is_ours, socket_address
from frontends.grpc.stream import Streams
from tests.support.memory_client import MemoryClient, service_of


class Aborted(Exception):
    """What `Context.abort` raises."""


class Context:
    """What a handler uses of grpc's context of a call."""

    def __init__(self, **metadata: str) -> None:
        self.metadata = metadata

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return tuple(self.metadata.items())

    def add_done_callback(self, callback: Any) -> None:
        """The call has no end here."""

    async def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        raise Aborted(code, details)

    async def write(self, data: bytes) -> NoReturn:
        raise AssertionError(f"{data!r} was written")


def aborted(rpc: str, request: Any, context: Context, *flags: str) -> tuple[grpc.StatusCode, str]:
    service = service_of(MemoryClient())
    handlers = inference_handlers(service, Streams(service), restrictions({"grpc_restricted_protocol": flags}))
    handler: Any = handlers[rpc]
    with pytest.raises(Aborted) as caught:
        asyncio.run((handler.unary_unary or handler.stream_stream)(request, context))
    code, details = caught.value.args
    return code, details


def test_a_request_error_is_the_status_of_the_call() -> None:
    code, details = aborted("ModelInfer", b"\xff", Context())
    assert code == grpc.StatusCode.INTERNAL
    assert details.startswith("failed to parse the request message: ")


@pytest.mark.parametrize("rpc", ["ModelInfer", "ModelStreamInfer"])
def test_a_restricted_rpc_needs_the_header(rpc: str) -> None:
    flag = "health,inference:admin-key=secret"
    for context in (
        Context(),
        Context(**{"triton-grpc-protocol-admin-key": "guess"}),
        Context(**{"admin-key": "secret"}),
    ):
        code, details = aborted(rpc, b"\xff", context, flag)
        assert code == grpc.StatusCode.UNAVAILABLE
        assert details == "This protocol is restricted, expecting header 'triton-grpc-protocol-admin-key'"


def test_with_the_header_a_restricted_rpc_is_served() -> None:
    context = Context(**{"triton-grpc-protocol-admin-key": "secret"})
    code, _ = aborted("ModelInfer", b"\xff", context, "inference:admin-key=secret")
    assert code == grpc.StatusCode.INTERNAL


def test_other_rpcs_are_open() -> None:
    assert aborted("ModelInfer", b"\xff", Context(), "health:admin-key=secret")[0] == grpc.StatusCode.INTERNAL


@pytest.mark.parametrize(
    ("host", "address"), [("0.0.0.0", "0.0.0.0:80"), ("localhost", "localhost:80"), ("::1", "[::1]:80")]
)
def test_an_ipv6_address_is_put_into_brackets(host: str, address: str) -> None:
    assert socket_address(host, 80) == address


ENDED = ExecuteBatchError('Failed "execute_batch": (<grpc._cython.cygrpc.SendStatusFromServerOperation object>,)')
MISUSED = ExecuteBatchError("Failed grpc_call_start_batch: 8 with grpc_call_error value: 'GRPC_CALL_ERROR_...'")


@pytest.mark.parametrize(
    ("text", "error", "ours"),
    [
        ("Unexpected [ExecuteBatchError] raised by servicer method [/a.B/C]", ENDED, False),
        ("Unexpected [ExecuteBatchError] raised by servicer method [/a.B/C]", MISUSED, True),
        ("Unexpected [UnicodeDecodeError] raised by servicer method [/a.B/\xe5]", ValueError(), False),
        ("Unexpected [UnicodeDecodeError] raised by servicer method [/a.B/C]", ValueError(), True),
        ("Unexpected [ValueError] raised by servicer method [/a.B/C]", ValueError(), True),
        ("Failed sending error status from server", ENDED, False),
        ("Invalid encoding on b'name'", None, False),
    ],
)
def test_only_what_clients_are_to_blame_for_stays_out_of_the_log(
    text: str, error: Exception | None, ours: bool
) -> None:
    details = (type(error), error, None) if error else None
    assert is_ours(logging.LogRecord("grpc", logging.ERROR, "file", 1, text, (), details)) is ours
