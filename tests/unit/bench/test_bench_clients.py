"""The load generator's connections measure what a server really answered, however the bytes arrive."""

import itertools
import socket
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.connection import Connection
from bench.grpc_client import (
    DATA,
    DEFAULT_WINDOW,
    END_STREAM,
    HEADERS,
    SETTINGS,
    WINDOW_UPDATE,
    GrpcConnection,
    frame,
    infer_message,
)
from bench.http_client import HttpConnection, infer_request

ANSWER = b'{"outputs":[]}' + bytes(range(200))
HTTP_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(ANSWER) + ANSWER
GRPC_ANSWER = (
    frame(SETTINGS, 0, 0)
    + frame(HEADERS, 0, 1, b"headers")
    + frame(DATA, 0, 1, ANSWER[:100])
    + frame(DATA, 0, 1, ANSWER[100:])
    + frame(HEADERS, END_STREAM, 1, b"trailers")
)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The client's end and the server's."""
    client, server = socket.socketpair()
    client.setblocking(False)
    server.setblocking(False)
    with client, server:
        yield client, server


def received(server: socket.socket) -> bytes:
    """All that has arrived at the server so far."""
    data = b""
    try:
        while chunk := server.recv(1 << 20):
            data += chunk
    except BlockingIOError:
        return data
    return data


def answers(connection: Connection, server: socket.socket, data: bytes, cuts: list[int]) -> list[int]:
    """How many answers the connection sees after each piece of `data`, which is cut at `cuts`."""
    seen = []
    edges = [0, *sorted(cut % len(data) for cut in cuts), len(data)]
    for start, end in itertools.pairwise(edges):
        if start < end:
            server.sendall(data[start:end])
            seen.append(len(connection.read()))
    return seen


@given(cuts=st.lists(st.integers(min_value=0), max_size=6))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_an_answer_counts_once_and_only_when_it_is_complete(cuts: list[int]) -> None:
    for make, data in (
        (lambda s: HttpConnection(s, [b"request"], len(ANSWER)), HTTP_ANSWER),
        (lambda s: GrpcConnection(s, [b"message"], len(ANSWER), 1), GRPC_ANSWER),
    ):
        client, server = socket.socketpair()
        with client, server:
            client.setblocking(False)
            connection = make(client)
            connection.start()
            connection.is_stopping = True
            counts = answers(connection, server, data, cuts)
            assert counts[-1] == 1
            assert sum(counts) == 1
            assert connection.in_flight == 0


def test_the_next_http_request_follows_an_answer(pair: tuple[socket.socket, socket.socket]) -> None:
    client, server = pair
    connection = HttpConnection(client, [b"request"], len(ANSWER))
    connection.start()
    assert received(server) == b"request"
    server.sendall(HTTP_ANSWER)
    assert len(connection.read()) == 1
    assert received(server) == b"request"


def test_an_http_error_is_raised_with_its_text(pair: tuple[socket.socket, socket.socket]) -> None:
    client, server = pair
    connection = HttpConnection(client, [b"request"], 1)
    connection.start()
    server.sendall(b'HTTP/1.1 400 Bad Request\r\nContent-Length: 19\r\n\r\n{"error":"no model"}')
    with pytest.raises(RuntimeError, match="no model"):
        connection.read()


def test_a_grpc_call_without_data_is_an_error(pair: tuple[socket.socket, socket.socket]) -> None:
    client, server = pair
    connection = GrpcConnection(client, [b"message"], 1, 1)
    connection.start()
    server.sendall(frame(SETTINGS, 0, 0) + frame(HEADERS, END_STREAM, 1, b"grpc-status 5"))
    with pytest.raises(RuntimeError, match="grpc-status 5"):
        connection.read()


def test_a_closed_connection_is_an_error(pair: tuple[socket.socket, socket.socket]) -> None:
    client, server = pair
    connection = GrpcConnection(client, [b"message"], 1, 1)
    connection.start()
    received(server)
    server.close()
    with pytest.raises(RuntimeError, match="closed"):
        connection.read()


def data_bytes(frames: bytes) -> int:
    """The bytes in DATA frames."""
    size = 0
    while frames:
        length = int.from_bytes(frames[:3])
        size += length if frames[3] == DATA else 0
        frames = frames[9 + length :]
    return size


def test_no_more_is_sent_than_the_servers_windows_allow(pair: tuple[socket.socket, socket.socket]) -> None:
    client, server = pair
    message = bytes(3 * DEFAULT_WINDOW)
    connection = GrpcConnection(client, [message], 1, 1)
    connection.start()
    sent = received(server)
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    assert sent.startswith(preface)
    assert data_bytes(sent.removeprefix(preface)) == DEFAULT_WINDOW

    more = (2 * DEFAULT_WINDOW).to_bytes(4)
    server.sendall(frame(WINDOW_UPDATE, 0, 1, more))  # the connection's window is still closed
    connection.read()
    assert received(server) == b""
    server.sendall(frame(WINDOW_UPDATE, 0, 0, more))
    connection.read()
    assert data_bytes(received(server)) == 2 * DEFAULT_WINDOW
    assert not connection.wants_to_write


def test_requests_carry_the_tensor() -> None:
    data = np.arange(16, dtype=np.float32)
    assert infer_request("m", data).startswith(b"POST /v2/models/m/infer HTTP/1.1\r\n")
    assert infer_request("m", data).endswith(data.tobytes())
    message = infer_message("m", data)
    assert int.from_bytes(message[1:5]) == len(message) - 5
    assert message.endswith(data.tobytes())
