"""The server's ports: opened (or reserved) by the broker, served by the frontends."""

import os
import socket
from typing import NamedTuple

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
    listeners: dict[str, socket.socket] = {}
    reservations: dict[str, socket.socket] = {}
    if config.allow_http:
        listeners["http"] = _bind(config.http_address, config.http_port, "http", config.reuse_http_port)
    if config.allow_metrics:
        address = config.metrics_address or config.http_address
        listeners["metrics"] = _bind(address, config.metrics_port, "metrics", False)
    if config.allow_sagemaker:
        listeners["sagemaker"] = _bind(config.http_address, config.sagemaker_port, "sagemaker", False)
    if config.allow_vertex_ai:
        listeners["vertex_ai"] = _bind(config.http_address, config.vertex_ai_port, "vertex_ai", False)
    if config.allow_grpc:
        if not config.reuse_grpc_port:
            probe = _bind(config.grpc_address, config.grpc_port, "grpc", False)
            port = probe.getsockname()[1]
            probe.close()
        else:
            port = config.grpc_port
        reservations["grpc"] = _bind(config.grpc_address, port, "grpc", True)
    for listener in listeners.values():
        listener.listen(BACKLOG)
    return Ports(listeners, reservations)


def frontend_counts(config: ServerConfig, ports: Ports) -> dict[str, int]:
    """How many frontend processes of each role: by default one below 4 cores, then one for every 4 cores."""
    automatic = min(8, max(1, len(os.sched_getaffinity(0)) // 4))
    http, grpc = config.http_frontends or automatic, config.grpc_frontends or automatic
    wanted = {"http": http, "grpc": grpc, "metrics": 1, "sagemaker": http, "vertex_ai": http}
    return {role: count for role, count in wanted.items() if role in {*ports.listeners, *ports.reservations}}


def _bind(address: str, port: int, role: str, is_shared: bool) -> socket.socket:
    try:
        family, kind, _, _, where = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
            0
        ]
        found = socket.socket(family, kind)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_shared:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        found.bind(where)
    except OSError as error:
        raise StartError(
            f"cannot serve {role} on '{address}:{port}': {error.strerror or error}; "
            f"choose another with --{role.replace('_', '-')}-port or --{_ADDRESSES.get(role, role)}-address"
        ) from None
    return found
