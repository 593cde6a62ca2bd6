"""Ports: opened before anything starts, refused by name, shared only where asked; GPUs that may be used."""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from broker.gpus import visible_gpus
from broker.listen import Ports, StartError, frontend_counts, open_ports
from configs.server import ServerConfig

LOCAL = {"http_address": "127.0.0.1", "grpc_address": "127.0.0.1", "http_port": 0, "grpc_port": 0, "metrics_port": 0}


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def open_all(opened: ExitStack, **settings: object) -> Ports:
    ports = open_ports(ServerConfig(**{**LOCAL, **settings}))
    for each in (*ports.listeners.values(), *ports.reservations.values()):
        opened.enter_context(each)
    return ports


def frontend(port: int) -> socket.socket:
    """A socket as grpcio makes them."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind(("127.0.0.1", port))
    return made


def test_listeners_listen_and_the_grpc_port_is_held(opened: ExitStack) -> None:
    ports = open_all(opened)
    assert set(ports.listeners) == {"http", "metrics"}
    assert set(ports.reservations) == {"grpc"}
    for role in ("http", "metrics"):
        opened.enter_context(socket.create_connection(ports.addresses()[role]))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(ports.addresses()["grpc"])
    opened.enter_context(frontend(ports.addresses()["grpc"][1]))


def test_what_is_switched_off_is_not_opened(opened: ExitStack) -> None:
    ports = open_all(opened, allow_http=False, allow_grpc=False, allow_metrics=False)
    assert ports.addresses() == {}
    assert frontend_counts(ServerConfig(), ports) == {}


@pytest.mark.parametrize("role", ["http", "grpc", "metrics"])
def test_a_port_that_is_taken_is_named(opened: ExitStack, role: str) -> None:
    taken = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
    port = taken.getsockname()[1]
    with pytest.raises(StartError) as caught:
        open_all(opened, **{f"{role}_port": port})
    assert str(caught.value) == (
        f"cannot serve {role} on '127.0.0.1:{port}': Address already in use; choose another with --{role}-port or "
        f"--{role}-address"
    )


def test_two_servers_share_a_port_only_when_both_want_to(opened: ExitStack) -> None:
    first = open_all(opened, reuse_grpc_port=True, reuse_http_port=True)
    grpc, http = (first.addresses()[role][1] for role in ("grpc", "http"))
    open_all(opened, reuse_grpc_port=True, reuse_http_port=True, grpc_port=grpc, http_port=http)
    with pytest.raises(StartError, match="cannot serve http"):
        open_all(opened, http_port=http)
    first.reservations["grpc"].listen()  # as its frontend does
    with pytest.raises(StartError, match="cannot serve grpc"):
        open_all(opened, grpc_port=grpc)


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_the_grpc_port_is_taken_before_its_frontends_listen_and_while_they_are_dead(
    opened: ExitStack, address: str
) -> None:
    port = open_all(opened).addresses()["grpc"][1]
    for _ in range(2):
        with pytest.raises(StartError, match="cannot serve grpc"):
            open_all(opened, grpc_port=port, grpc_address=address)
        with frontend(port) as one, frontend(port) as another:
            one.listen()
            another.listen()
            opened.enter_context(socket.create_connection(("127.0.0.1", port)))


def test_a_server_starts_again_where_the_last_ones_connections_linger(opened: ExitStack) -> None:
    with socket.create_server(("127.0.0.1", 0)) as last:
        port = last.getsockname()[1]
        client = opened.enter_context(socket.create_connection(("127.0.0.1", port)))
        last.accept()[0].close()  # this end waits for a minute now
        assert client.recv(1) == b""
    client.close()
    assert open_all(opened, grpc_port=port).addresses()["grpc"] == ("127.0.0.1", port)


def test_an_address_that_is_none() -> None:
    with pytest.raises(StartError, match=r"cannot serve http on 'nowhere\.invalid:0'"):
        open_ports(ServerConfig(**{**LOCAL, "http_address": "nowhere.invalid"}))


def test_a_start_that_fails_leaves_no_port_open(opened: ExitStack) -> None:
    before = os.listdir("/proc/self/fd")
    taken = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
    with pytest.raises(StartError) as caught:
        open_all(opened, grpc_port=taken.getsockname()[1])
    del caught
    taken.close()
    assert os.listdir("/proc/self/fd") == before


def test_frontends_are_as_many_as_asked_for(opened: ExitStack) -> None:
    ports = open_all(opened)
    counts = frontend_counts(ServerConfig(http_frontends=3, grpc_frontends=2), ports)
    assert counts == {"http": 3, "grpc": 2, "metrics": 1}
    assert all(1 <= count <= 8 for count in frontend_counts(ServerConfig(), ports).values())


# ------------------------------------------------------------------------------------------- GPUs


@pytest.mark.parametrize(
    ("mask", "usable"),
    [
        (None, ("0", "1", "10")),
        ("", ()),
        ("1", ("1",)),
        (" 1 , 0 ", ("1", "0")),
        ("GPU-8c3a, GPU-11aa", ("GPU-8c3a", "GPU-11aa")),
        ("0,-1,1", ("0",)),
        ("-1", ()),
        ("0,,1", ("0",)),
    ],
)
def test_the_servers_own_mask_counts(tmp_path: Path, mask: str | None, usable: tuple[str, ...]) -> None:
    for name in ("nvidia1", "nvidia0", "nvidia10", "nvidiactl", "nvidia-uvm", "nvidia0x"):
        (tmp_path / name).touch()
    environ = {} if mask is None else {"CUDA_VISIBLE_DEVICES": mask}
    assert visible_gpus(environ, tmp_path) == usable


def test_without_devices_no_mask_helps(tmp_path: Path) -> None:
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "0"}, tmp_path) == ()
