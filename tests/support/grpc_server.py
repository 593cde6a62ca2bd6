"""A gRPC frontend process on a fake broker, for tests with real clients."""

import socket
from typing import Any

import grpc

from broker.messages import Infer
from tests.support.fake_broker import FakeBroker, Frontend

OPTIONS: dict[str, Any] = {
    "grpc_address": "127.0.0.1",
    "grpc_infer_response_compression_level": "none",
    "grpc_keepalive_time": 7200000,
    "grpc_keepalive_timeout": 20000,
    "grpc_keepalive_permit_without_calls": False,
    "grpc_http2_max_pings_without_data": 2,
    "grpc_http2_min_recv_ping_interval_without_data": 300000,
    "grpc_http2_max_ping_strikes": 2,
    "grpc_max_connection_age": 0,
    "grpc_max_connection_age_grace": 0,
    "grpc_header_forward_pattern": "",
    "grpc_restricted_protocol": (),
    "grpc_use_ssl": False,
    "grpc_use_ssl_mutual": False,
    "grpc_server_cert": "",
    "grpc_server_key": "",
    "grpc_root_cert": "",
    "allow_client_shm": True,
}
SECONDS = 30.0


class GrpcServer:
    """A fake broker, its gRPC frontend and the address where that listens."""

    def __init__(self, credentials: grpc.ChannelCredentials | None = None, **options: Any) -> None:
        """`credentials` are a client's, where the options ask for TLS."""
        self._credentials = credentials
        self._reservation = socket.socket()
        self._reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._reservation.bind(("127.0.0.1", 0))
        port = self._reservation.getsockname()[1]
        self.address = f"127.0.0.1:{port}"
        self.broker = FakeBroker(**OPTIONS | options, grpc_port=port)

    def __enter__(self) -> "GrpcServer":
        self.broker.__enter__()
        self.frontend = self.start()
        return self

    def __exit__(self, *details: Any) -> None:
        self.broker.__exit__(*details)
        self._reservation.close()

    def start(self) -> Frontend:
        frontend = self.broker.frontend("grpc")
        with self.channel() as channel:
            grpc.channel_ready_future(channel).result(SECONDS)
        return frontend

    def channel(self) -> grpc.Channel:
        if self._credentials is None:
            return grpc.insecure_channel(self.address)
        return grpc.secure_channel(self.address, self._credentials)

    def stop(self) -> int:
        """Tell the frontend to stop; its exit status."""
        self.broker.stop(self.frontend.token)
        return self.frontend.process.wait(SECONDS)

    def sent(self, model: str) -> list[Infer]:
        return [m for m in self.broker.seen if isinstance(m, Infer) and m.model == model]
