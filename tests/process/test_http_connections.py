"""How requests are framed and carried: pipelining, chunks, Expect, HTTP/1.0, HTTPS."""

import json
import os
import re
import socket
import ssl
from collections.abc import Iterator
from http.client import HTTPSConnection
from pathlib import Path

import pytest

from tests.support.certificates import make_certificates
from tests.support.fake_broker import SECONDS, FakeBroker, Frontend
from tests.support.http import LENGTH, ask, exchange, framed

INFER = "/v2/models/echo/infer"
LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: h\r\n\r\n"
LAST = b"GET /v2/nothing HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def broker() -> Iterator[FakeBroker]:
    with FakeBroker(http_max_input_size=1 << 20) as fake:
        yield fake


@pytest.fixture(scope="module")
def frontend(broker: FakeBroker) -> Frontend:
    return broker.frontend("http")


def statuses(received: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d+) ", received)]


def post(path: str, body: bytes, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: h", *headers]
    if not any(header.startswith("Transfer-Encoding") for header in headers):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


# ----------------------------------------------------------------------------------------------- connections


def test_pipelined_requests_are_answered_in_order(frontend: Frontend) -> None:
    body, length = framed([100_000], os.urandom(400_000))
    infer = post(INFER, body, f"{LENGTH}: {length}")
    small = post("/v2/models/nope/infer", b"x" * 1000)
    sent = LIVE + infer + small + LIVE * 50 + infer + post("/v2/repository/index", b"") + LAST
    received = exchange(frontend.address, sent)
    assert statuses(received) == [200, 200, 404, *[200] * 50, 200, 200, 404]


def test_keep_alive_after_errors_with_bodies(frontend: Frontend) -> None:
    body = b'{"x":"' + b"x" * 100_000 + b'"}'
    bad = [
        post("/v2/models/nope/infer", body),
        post("/nothing", body),
        post("/v2/health/live", body),
        post(INFER, b"{"),
    ]
    assert statuses(exchange(frontend.address, b"".join([*bad, LIVE, LAST]))) == [404, 404, 405, 500, 200, 404]


def test_connections_that_are_to_close(frontend: Frontend) -> None:
    closing = LIVE.replace(b"Host: h", b"Host: h\r\nConnection: close")
    assert statuses(exchange(frontend.address, closing)) == [200]
    old = LIVE.replace(b"1.1", b"1.0")
    assert statuses(exchange(frontend.address, old)) == [200]
    kept = old.replace(b"Host: h", b"Connection: keep-alive")
    assert statuses(exchange(frontend.address, kept + old)) == [200, 200]


@pytest.mark.parametrize(
    "data",
    [
        b"hello world\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\n\r\n",  # HTTP/1.1 demands a Host
        b"\x16\x03\x01\x02\0\1\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\nHost: h\r\nContent-Length: abc\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\nHost: h\r\nX-Long: " + b"x" * 70_000 + b"\r\n\r\n",
        b"POST /v2/repository/index HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_what_is_no_http_ends_the_connection(
    frontend: Frontend, data: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    assert statuses(exchange(frontend.address, data)) in ([], [400])
    assert ask(frontend.address, "GET", "/v2").status == 200
    assert capfd.readouterr().err == ""  # clients cannot fill the log


# ----------------------------------------------------------------------------------------------- bodies


@pytest.mark.parametrize("path", ["/v2/repository/models/echo/load", "/v2/models/echo/generate", "/v2/logging"])
def test_expect_continue(frontend: Frontend, path: str) -> None:
    host, _, port = frontend.address.partition(":")
    with socket.create_connection((host, int(port)), SECONDS) as connection:
        connection.sendall(post(path, b"", "Expect: 100-continue").replace(b"Length: 0", b"Length: 2"))
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"{}")
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")


def test_no_continue_before_a_refusal(frontend: Frontend) -> None:
    head = post("/v2/nothing", b"", "Expect: 100-continue", "Connection: close").replace(b"Length: 0", b"Length: 2")
    assert statuses(exchange(frontend.address, head + b"{}")) == [404]


@pytest.mark.parametrize("size", [0, 4, 40_000, 300_000, 3_000_000])
@pytest.mark.parametrize("piece", [1000, 70_001])
def test_chunked_bodies_of_any_size(frontend: Frontend, broker: FakeBroker, size: int, piece: int) -> None:
    data = os.urandom(size)
    body, length = framed([size // 4], data)
    chunks = (body[i : i + piece] for i in range(0, len(body), piece))
    answer = ask(frontend.address, "POST", INFER, chunks, **{LENGTH: length, "Transfer-Encoding": "chunked"})
    assert answer.status == 200
    assert answer.body.endswith(data)
    assert broker.lent_blocks == 0


def test_a_chunked_raw_request(frontend: Frontend) -> None:
    for size in (0, 100, 400_000):
        data = os.urandom(size)
        answer = ask(frontend.address, "POST", INFER, iter([data]), **{LENGTH: "0", "Transfer-Encoding": "chunked"})
        assert answer.body.endswith(data)


def test_chunked_bodies_are_bounded(frontend: Frontend) -> None:
    pieces = [bytes(100_000)] * 20
    for headers, begin in (
        ({}, "request JSON size of "),
        ({LENGTH: "0"}, "Raw input has a byte_size ("),
        ({LENGTH: "1048577"}, "request JSON size of 1048577 bytes exceeds"),
    ):
        answer = ask(frontend.address, "POST", INFER, iter(pieces), **headers, **{"Transfer-Encoding": "chunked"})
        assert answer.status == 400
        assert answer.error.startswith(begin)
    answer = ask(frontend.address, "POST", INFER, iter([b"{}"]), **{LENGTH: "3", "Transfer-Encoding": "chunked"})
    assert answer.error == "inference header size should be in range (0, 2), got: 3"


def test_the_number_of_chunks_is_bounded(frontend: Frontend) -> None:
    spaces = [b" "] * 65_536
    allowed = post("/v2/repository/index", chunked(*spaces[2:], b"{}"), "Transfer-Encoding: chunked")
    assert statuses(exchange(frontend.address, allowed + LAST)) == [200, 404]
    for path in ("/v2/repository/index", INFER):
        excessive = post(path, chunked(*spaces, b"{}"), "Transfer-Encoding: chunked")
        received = exchange(frontend.address, excessive + LIVE)
        assert statuses(received) == [400]  # and the connection is closed
        error = json.loads(received.split(b"\r\n\r\n", 1)[1])["error"]
        assert error == (
            "Chunked request body exceeds maximum of 65536 non-empty chunks. Send fewer or larger HTTP chunks."
        )


def test_requests_without_a_body_and_its_length(frontend: Frontend) -> None:
    bare = b"POST /v2/repository/index HTTP/1.1\r\nHost: h\r\n\r\n"  # as `curl -X POST` sends it
    assert statuses(exchange(frontend.address, bare * 3 + LAST)) == [200, 200, 200, 404]


def test_a_body_that_ends_early(frontend: Frontend, broker: FakeBroker) -> None:
    host, _, port = frontend.address.partition(":")
    body, length = framed([250_000], bytes(1_000_000))
    with socket.create_connection((host, int(port)), SECONDS) as connection:
        connection.sendall(post(INFER, body, f"{LENGTH}: {length}")[:500_000])
    assert ask(frontend.address, "POST", INFER, body, **{LENGTH: length}).status == 200


# ----------------------------------------------------------------------------------------------- HTTPS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def https(broker: FakeBroker, certificates: Path, client_ca: str) -> str:
    return broker.frontend(
        "http",
        http_use_ssl=True,
        http_server_cert=str(certificates / "server.pem"),
        http_server_key=str(certificates / "server.key"),
        http_client_ca=client_ca,
    ).address


def infer_over(address: str, context: ssl.SSLContext, data: bytes) -> bytes:
    body, length = framed([len(data) // 4], data)
    connection = HTTPSConnection(address, timeout=SECONDS, context=context)
    try:
        connection.request("POST", INFER, body, {LENGTH: length})
        return connection.getresponse().read()
    finally:
        connection.close()


def test_https(broker: FakeBroker, certificates: Path) -> None:
    address = https(broker, certificates, "")
    context = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
    for size in (4, 4_000_000):
        data = os.urandom(size)
        assert infer_over(address, context, data).endswith(data)
    with pytest.raises(ssl.SSLCertVerificationError):
        infer_over(address, ssl.create_default_context(), b"1234")
    assert exchange(address, LIVE) == b""  # plain HTTP


def test_clients_have_to_show_a_certificate(broker: FakeBroker, certificates: Path) -> None:
    address = https(broker, certificates, str(certificates / "ca.pem"))
    context = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
    with pytest.raises((ssl.SSLError, ConnectionError)):
        infer_over(address, context, b"1234")
    context.load_cert_chain(certificates / "client.pem", certificates / "client.key")
    assert infer_over(address, context, b"1234").endswith(b"1234")
