"""The server's ports: opened (or reserved) by the broker, served by the frontends."""

import socket
from contextlib import ExitStack
from typing import NamedTuple

from broker import processors
from configs.server import ServerConfig

BACKLOG = 1024
_ADDRESSES = {"sagemaker": "http", "vertex_ai": "http"}
"""The roles that have the address of another."""


class StartError(Exception):
    """The server cannot start; the text says why and what to do."""


class Ports(NamedTuple):
    """Listening sockets by role, handed to their frontends, and the port where gRPC frontends listen themselves.

    grpcio takes no socket: its frontends share the port (SO_REUSEPORT) with a socket that only holds it.
    """

    listeners: dict[str, socket.socket]
    reservations: dict[str, socket.socket]

    def addresses(self) -> dict[str, tuple[str, int]]:
        """Address and port by role."""
        return {role: s.getsockname()[:2] for role, s in {**self.listeners, **self.reservations}.items()}


def open_ports(config: ServerConfig) -> Ports:
    """Open all ports. Raises StartError naming the port that is taken."""
    http = config.http_address
    with ExitStack() as opened:
        listeners: dict[str, socket.socket] = {}
        reservations: dict[str, socket.socket] = {}
        for role, is_wanted, address, port, is_shared in (
            ("http", config.allow_http, http, config.http_port, config.reuse_http_port),
            ("metrics", config.allow_metrics, config.metrics_address or http, config.metrics_port, False),
            ("sagemaker", config.allow_sagemaker, http, config.sagemaker_port, False),
            ("vertex_ai", config.allow_vertex_ai, http, config.vertex_ai_port, False),
        ):
            if is_wanted:
                listeners[role] = opened.enter_context(_bind(address, port, role, is_shared, listens=True))
        if config.allow_grpc:
            held = opened.enter_context(_bind(config.grpc_address, config.grpc_port, "grpc", config.reuse_grpc_port))
            if not config.reuse_grpc_port:
                _share_with_frontends(held)
            reservations["grpc"] = held
        opened.pop_all()
    return Ports(listeners, reservations)


def frontend_counts(config: ServerConfig, ports: Ports) -> dict[str, int]:
    """How many frontend processes of each role: by default one below 4 cores, then one for every 4 cores."""
    automatic = min(8, max(1, processors.find().usable() // 4))
    http, grpc = config.http_frontends or automatic, config.grpc_frontends or automatic
    wanted = {"http": http, "grpc": grpc, "metrics": 1, "sagemaker": http, "vertex_ai": http}
    return {role: count for role, count in wanted.items() if role in {*ports.listeners, *ports.reservations}}


def _share_with_frontends(held: socket.socket) -> None:
    """Let in those who ask for SO_REUSEPORT, our frontends, and nobody else, whether or not somebody listens yet.

    SO_REUSEADDR was only for binding where closed connections linger; kept, it would let in any other server.
    """
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


def _bind(address: str, port: int, role: str, is_shared: bool, listens: bool = False) -> socket.socket:
    with ExitStack() as opened:
        try:
            found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            family, kind, _, _, where = found[0]
            bound = opened.enter_context(socket.socket(family, kind))
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if is_shared:
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            bound.bind(where)
            if listens:
                bound.listen(BACKLOG)
        except OSError as error:
            raise StartError(
                f"cannot serve {role} on '{address}:{port}': {error.strerror or error}; "
                f"choose another with --{role.replace('_', '-')}-port or --{_ADDRESSES.get(role, role)}-address"
            ) from None
        opened.pop_all()
    return bound
