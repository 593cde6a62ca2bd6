"""What the load generator asks of a client connection; `http_client` and `grpc_client` each have one."""

import socket
from typing import Protocol

# Answers are measured, not kept: their bytes all go here, so that the client takes little of the machine.
BUFFER = memoryview(bytearray(256 << 10))


class Connection(Protocol):
    """A non-blocking connection that keeps its requests in flight until `is_stopping` is set."""

    socket: socket.socket
    is_stopping: bool

    @property
    def in_flight(self) -> int:
        """Requests that are not answered yet."""

    @property
    def wants_to_write(self) -> bool:
        """Whether something did not fit into the socket."""

    def start(self) -> None:
        """Sends the first requests."""

    def write(self) -> None:
        """Sends as much as the socket takes."""

    def read(self) -> list[float]:
        """Receives once, and begins the next request for each that was answered: the seconds that each took.

        RuntimeError with what the server said when an answer is not a success.
        """


def connect(address: tuple[str, int]) -> socket.socket:
    """A non-blocking socket that sends at once."""
    connected = socket.create_connection(address)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connected.setblocking(False)
    return connected
