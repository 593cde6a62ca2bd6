"""The short way of plain inference requests, next to aiohttp's on the same connections."""

import json
import socket
import struct
import time
from collections.abc import Iterator

import pytest

from broker.messages import Cancel, Infer
from tests.support.fake_broker import SECONDS, FakeBroker, Frontend
from tests.support.http import exchange

LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: h\r\n\r\n"
CLOSE = b"GET /v2/nothing HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def broker() -> Iterator[FakeBroker]:
    with FakeBroker() as fake:
        yield fake


@pytest.fixture(scope="module")
def frontend(broker: FakeBroker) -> Frontend:
    return broker.frontend("http")


def infer(values: list[float], model: str = "echo", request_id: str = "") -> bytes:
    """A plain request: FP32 values in binary, all outputs wanted in binary."""
    data = struct.pack(f"<{len(values)}f", *values)
    tensor = {
        "name": "IN",
        "datatype": "FP32",
        "shape": [len(values)],
        "parameters": {"binary_data_size": len(data)},
    }
    document = {"inputs": [tensor], "parameters": {"binary_data_output": True}}
    text = json.dumps({"id": request_id, **document} if request_id else document).encode()
    head = f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: h\r\nContent-Length: {len(text) + len(data)}\r\n"
    return f"{head}Inference-Header-Content-Length: {len(text)}\r\n\r\n".encode() + text + data


def answers(received: bytes) -> list[tuple[int, bytes]]:
    """Status and body of each response."""
    found = []
    while received:
        head, _, rest = received.partition(b"\r\n\r\n")
        lines = head.decode().lower().split("\r\n")
        length = int(next(line.split(":")[1] for line in lines if line.startswith("content-length:")))
        found.append((int(lines[0].split()[1]), rest[:length]))
        received = rest[length:]
    return found


def is_served_by_aiohttp(received: bytes) -> bool:
    return b"\r\nServer: Python" in received.partition(b"\r\n\r\n")[0]


def values_of(body: bytes, count: int) -> list[float]:
    return list(struct.unpack(f"<{count}f", body[-4 * count :]))


def test_it_is_the_short_way(frontend: Frontend) -> None:
    host, port = frontend.address.split(":")
    with socket.create_connection((host, int(port)), SECONDS) as connection:
        connection.sendall(infer([1.5]))
        received = connection.recv(65536)
    assert not is_served_by_aiohttp(received)
    assert values_of(answers(received)[0][1], 1) == [1.5]


def test_both_ways_alternate_on_a_connection(frontend: Frontend) -> None:
    sent, expected = b"", []
    for number in range(20):
        sent += infer([float(number)], request_id=f"r{number}") + LIVE * (number % 3)
        expected += [number] + [None] * (number % 3)
    got = answers(exchange(frontend.address, sent + CLOSE))
    assert [status for status, _ in got] == [200] * len(expected) + [404]
    for (_, body), number in zip(got, expected, strict=False):
        if number is not None:
            assert values_of(body, 1) == [number]
            assert json.loads(body[:-4])["id"] == f"r{number}"


@pytest.mark.parametrize("cut", [1, 30, 90, -1, -60])
def test_a_request_may_come_in_pieces(frontend: Frontend, cut: int) -> None:
    whole = infer([1.0, 2.0]) + infer([3.0, 4.0])
    host, port = frontend.address.split(":")
    with socket.create_connection((host, int(port)), SECONDS) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in (LIVE, whole[:cut], whole[cut:], CLOSE):
            connection.sendall(piece)
            time.sleep(0.02)  # so that pieces arrive as pieces; the answers do not depend on it
        received = b""
        while piece := connection.recv(65536):
            received += piece
    got = answers(received)
    assert [status for status, _ in got] == [200, 200, 200, 404]
    assert values_of(got[1][1], 2) == [1.0, 2.0]
    assert values_of(got[2][1], 2) == [3.0, 4.0]


def test_tensors_beyond_inline_size_lie_in_blocks_that_come_back(broker: FakeBroker, frontend: Frontend) -> None:
    values = [float(number) for number in range(10_000)]
    got = answers(exchange(frontend.address, infer(values) + infer(values[::-1]) + CLOSE))
    assert values_of(got[0][1], 10_000) == values
    assert values_of(got[1][1], 10_000) == values[::-1]
    end = time.monotonic() + SECONDS
    while broker.lent_blocks and time.monotonic() < end:
        time.sleep(0.05)
    assert broker.lent_blocks == 0


def test_what_is_wrong_is_said_by_the_long_way_and_the_connection_goes_on(frontend: Frontend) -> None:
    short = infer([1.0]).replace(b'"binary_data_size": 4', b'"binary_data_size": 8')
    got = answers(exchange(frontend.address, short + infer([2.0]) + infer([3.0], model="nope") + CLOSE))
    assert [status for status, _ in got] == [400, 200, 404, 404]
    assert "expecting 4 additional bytes" in json.loads(got[0][1])["error"]
    assert values_of(got[1][1], 1) == [2.0]


def test_a_client_that_leaves_cancels_its_request(broker: FakeBroker, frontend: Frontend) -> None:
    host, port = frontend.address.split(":")
    with socket.create_connection((host, int(port)), SECONDS) as connection:
        connection.sendall(infer([1.0], model="slow"))
        request: Infer = broker.wait_for(lambda m: isinstance(m, Infer) and m.model == "slow")
    broker.wait_for(lambda m: isinstance(m, Cancel) and m.request == request.request)
    broker.answer_slow()
    assert answers(exchange(frontend.address, infer([5.0]) + CLOSE))[0][0] == 200


def test_a_stopping_frontend_answers_what_is_under_way(broker: FakeBroker) -> None:
    frontend = broker.frontend("http")
    host, port = frontend.address.split(":")
    with socket.create_connection((host, int(port)), SECONDS) as connection:
        connection.sendall(infer([7.0], model="slow"))
        broker.wait_for(
            lambda m: isinstance(m, Infer) and m.model == "slow" and m.inputs[0].data[:4] == b"\0\0\xe0\x40"
        )
        broker.stop(frontend.token)
        time.sleep(0.2)  # the drain begins; the answer does not depend on it
        broker.answer_slow()
        received = b""
        while piece := connection.recv(65536):
            received += piece
    ((status, body),) = answers(received)
    assert status == 200
    assert json.loads(body)["model_name"] == "slow"
    assert frontend.process.wait(SECONDS) == 0
