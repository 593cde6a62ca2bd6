"""The gRPC server: its services on a socket of their own, with or without TLS."""

import logging
from typing import Any

import grpc
import grpc.aio

from broker.child import Place
from broker.client import Client
from frontends.grpc.channel import channel_arguments
from frontends.grpc.credentials import server_credentials
from frontends.grpc.handlers import services
from frontends.grpc.restricted import restrictions
from frontends.grpc.service import Service
from frontends.grpc.stream import Streams


class GrpcServer:
    """The running server; see `frontends.lifecycle.Server`."""

    def __init__(self, server: grpc.aio.Server, streams: Streams) -> None:
        """`server` has been started."""
        self._server = server
        self._streams = streams

    async def drain(self, seconds: float) -> None:
        """Refuse new calls and requests, let those under way finish for `seconds` at most, then cancel them."""
        self._streams.close()
        await self._server.stop(seconds)


async def serve(client: Client, options: dict[str, Any], _place: Place) -> GrpcServer:
    """Start serving on the options' address and port. Raises OSError when the port is taken."""
    logging.getLogger("grpc._cython.cygrpc").addFilter(is_ours)
    service = Service.of(client, options)
    streams = Streams(service)
    server = grpc.aio.server(options=channel_arguments(options))
    server.add_generic_rpc_handlers(services(service, streams, restrictions(options)))
    _listen(server, socket_address(options["grpc_address"], options["grpc_port"]), server_credentials(options))
    await server.start()
    return GrpcServer(server, streams)


def socket_address(host: str, port: int) -> str:
    """Where gRPC is to listen; it wants brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_ours(record: logging.LogRecord) -> bool:
    """False for what gRPC logs about its clients' faults: names that are no UTF-8, answers that nobody waited for."""
    text = record.getMessage()
    if text.startswith("Unexpected [UnicodeDecodeError] raised by servicer method"):
        return text.isascii()  # the path stands in the text
    if text.startswith("Unexpected [ExecuteBatchError] raised by servicer method"):
        error = record.exc_info[1] if record.exc_info else None
        return not str(error).startswith('Failed "execute_batch"')  # this one: begun well, but the call had ended
    return not text.startswith(("Invalid encoding", "Failed sending error status"))


def _listen(server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None) -> None:
    try:
        if credentials is None:
            server.add_insecure_port(address)
        else:
            server.add_secure_port(address, credentials)
    except RuntimeError:
        raise OSError(f"Socket '{address}' already in use") from None
