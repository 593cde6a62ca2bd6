"""A server for all tests that leave it as it is, and a client of it over each protocol."""

from collections.abc import Iterator

import pytest

from tests.support.clients import PROTOCOLS, Client
from tests.support.repository import Commands, instances, write_echo, write_identity, write_sizes
from tests.support.server import Server

GIB = 1 << 30


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Models: `identity` and `echo` (FP32 IN to OUT), `texts` (echo of BYTES), `sizes`, `commands`."""
    server = Server(tmp_path_factory.mktemp("shared"), "", f"--http-max-input-size={2 * GIB}")
    write_identity(server.repository, "identity", instances(2))
    write_echo(server.repository, "echo")
    write_echo(server.repository, "texts", data_type="TYPE_STRING")
    write_sizes(server.repository, "sizes")
    Commands(server.repository)
    with server:
        yield server


@pytest.fixture(params=PROTOCOLS)
def client(request: pytest.FixtureRequest, shared: Server) -> Iterator[Client]:
    """A connection to the shared server, once over each protocol."""
    with Client(request.param, shared) as connected:
        yield connected
