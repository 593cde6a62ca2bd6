"""The HTTP frontend as a process, on the real fabric, driven by real clients and a fake broker."""

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http as tritonclient

from broker.messages import Cancel, Infer
from tests.support.fake_broker import SECONDS, FakeBroker, Frontend
from tests.support.http import LENGTH, ask, framed, sending

INFER = "/v2/models/echo/infer"
SLOW = "/v2/models/slow/infer"


@pytest.fixture(scope="module")
def broker() -> Iterator[FakeBroker]:
    with FakeBroker(http_max_input_size=4 << 20) as fake:
        yield fake


@pytest.fixture(scope="module")
def frontend(broker: FakeBroker) -> Frontend:
    return broker.frontend("http")


@pytest.fixture
def client(frontend: Frontend) -> Iterator[tritonclient.InferenceServerClient]:
    with tritonclient.InferenceServerClient(frontend.address) as connected:
        yield connected


def seen(broker: FakeBroker, request_id: str) -> Infer:
    """The request with this id, as it reached the broker."""
    infer: Infer = broker.wait_for(lambda message: type(message) is Infer and message.request_id == request_id)
    return infer


# ----------------------------------------------------------------------------------------------- clients


@pytest.mark.parametrize(
    ("size", "is_binary"),
    [(0, True), (4, True), (1000, True), (100_000, True), (2_000_000, True), (0, False), (4, False), (100_000, False)],
)
def test_tensors_come_back(
    client: tritonclient.InferenceServerClient, broker: FakeBroker, size: int, is_binary: bool
) -> None:
    numbers = np.random.default_rng(size).random((1, size), np.float32)
    strings = np.array([b"a", b"\xff\0"], np.object_)
    inputs = [tritonclient.InferInput("X", [1, size], "FP32"), tritonclient.InferInput("S", [2], "BYTES")]
    inputs[0].set_data_from_numpy(numbers, binary_data=is_binary)
    inputs[1].set_data_from_numpy(strings)
    outputs = [
        tritonclient.InferRequestedOutput("X", binary_data=is_binary),
        tritonclient.InferRequestedOutput("S", binary_data=True),
    ]
    result = client.infer("echo", inputs, outputs=outputs, request_id="7", parameters={"p": "x"})
    np.testing.assert_array_equal(result.as_numpy("X"), numbers)
    np.testing.assert_array_equal(result.as_numpy("S"), strings)
    answer = result.get_response()
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("7", "echo", "1")
    assert answer["parameters"] == {"p": "x"}
    assert broker.lent_blocks == 0


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compression_in_both_directions(client: tritonclient.InferenceServerClient, algorithm: str) -> None:
    numbers = np.arange(100_000, dtype=np.float32)
    given = tritonclient.InferInput("X", [100_000], "FP32")
    given.set_data_from_numpy(numbers)
    result = client.infer(
        "echo", [given], request_compression_algorithm=algorithm, response_compression_algorithm=algorithm
    )
    np.testing.assert_array_equal(result.as_numpy("X"), numbers)


def test_questions(client: tritonclient.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("echo")
    assert not client.is_model_ready("slow", "1")
    metadata = client.get_server_metadata()
    assert (metadata["name"], metadata["version"]) == ("fake", "1.2.3")
    assert "binary_tensor_data" in metadata["extensions"]
    assert client.get_model_metadata("echo")["platform"] == "fake"
    assert client.get_model_config("echo", "1")["name"] == "echo"
    assert client.get_inference_statistics()["model_stats"][0]["name"] == "every"
    assert client.get_inference_statistics("echo")["model_stats"][0]["name"] == "echo"


# ----------------------------------------------------------------------------------------------- bytes


@pytest.mark.parametrize("size", [0, 4, 1020, 1024, 200_000])
def test_a_raw_request_leaves_room_before_its_data(frontend: Frontend, broker: FakeBroker, size: int) -> None:
    data = os.urandom(size)
    answer = ask(frontend.address, "POST", INFER, data, **{LENGTH: "0"})
    assert answer.status == 200
    assert answer.body.endswith(data)
    sent = [message for message in broker.seen if type(message) is Infer][-1]
    (raw,) = sent.inputs
    assert sent.is_raw
    assert raw.byte_size == size
    if raw.data is not None:
        assert raw.data == size.to_bytes(4, "little") + data
    else:
        assert raw.offset % 64 == 0


def test_a_large_binary_section_is_aligned(frontend: Frontend, broker: FakeBroker) -> None:
    data = os.urandom(400_000)
    body, length = framed([100_000], data, id="aligned")
    answer = ask(frontend.address, "POST", INFER, body, **{LENGTH: length})
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.body[int(answer.headers[LENGTH]) :] == data
    assert seen(broker, "aligned").inputs[0].offset % 64 == 0


def test_payload_is_copied_once_in_and_once_out(broker: FakeBroker) -> None:
    program = (
        "import json; from frontends.http.server import serve; from frontends.lifecycle import run; "
        "from shm import copies; run('http', serve); print(json.dumps(copies.by_place))"
    )
    frontend = broker.frontend("http", program, subprocess.PIPE)
    body, length = framed([1_000_000], bytes(4_000_000))
    assert ask(frontend.address, "POST", INFER, body, **{LENGTH: length}).status == 200
    broker.stop(frontend.token)
    output, _ = frontend.process.communicate(timeout=SECONDS)
    assert json.loads(output) == {"request body": len(body), "response": 4_000_000}


def test_chunks_and_continue(frontend: Frontend) -> None:
    data = os.urandom(40_000)
    body, length = framed([10_000], data)
    chunks = (body[i : i + 999] for i in range(0, len(body), 999))
    answer = ask(frontend.address, "POST", INFER, chunks, **{LENGTH: length, "Transfer-Encoding": "chunked"})
    assert answer.body.endswith(data)
    host, _, port = frontend.address.partition(":")
    with socket.create_connection((host, int(port)), SECONDS) as connection:
        head = f"POST {INFER} HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n{LENGTH}: {length}\r\n"
        connection.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")


def test_empty_binary_outputs_are_plain_json(frontend: Frontend) -> None:
    body, length = framed([0], b"")
    answer = ask(frontend.address, "POST", INFER, body, **{LENGTH: length})
    assert answer.headers["Content-Type"] == "application/json"
    assert LENGTH not in answer.headers
    assert json.loads(answer.body)["outputs"][0]["parameters"] == {"binary_data_size": 0}


# ----------------------------------------------------------------------------------------------- errors


def test_routes_that_are_not_there(frontend: Frontend) -> None:
    assert ask(frontend.address, "GET", "/v2/")[:2] == (404, "Not Found")
    assert ask(frontend.address, "GET", "/v2/").body == b'{"error":"Not Found"}'
    assert ask(frontend.address, "GET", INFER)[:2] == (405, "Not Allowed")
    assert ask(frontend.address, "POST", "/v2").body == b'{"error":"Method Not Allowed"}'
    assert ask(frontend.address, "GET", "/v2/models/nope/ready").error == "Model version not ready"
    assert ask(frontend.address, "GET", "/v2/models/echo/versions/99999999999999999999").status == 400


def test_errors_of_the_broker_and_the_frontend(frontend: Frontend) -> None:
    unknown = "Request for unknown model: 'nope' is not found"
    assert ask(frontend.address, "GET", "/v2/models/nope").error == unknown
    valid, length = framed([1], b"1234")
    for body, headers in ((b"x", {}), (valid, {LENGTH: length}), (b"x", {LENGTH: "x"})):
        answer = ask(frontend.address, "POST", "/v2/models/nope/infer", body, **headers)
        assert (answer.status, answer.error) == (404, unknown)
    broken = ask(frontend.address, "POST", "/v2/models/broken/infer", valid, **{LENGTH: length})
    assert (broken.status, broken.error) == (500, "it broke")
    invalid = ask(frontend.address, "POST", INFER, b"x")
    assert (invalid.status, invalid.error) == (500, "failed to parse the request JSON buffer: Invalid value. at 0")
    encoded = ask(frontend.address, "POST", INFER, b"x", Content_Encoding="br")
    assert (encoded.status, encoded.headers["Accept-Encoding"]) == (501, "gzip, deflate")


@pytest.mark.parametrize(
    ("length", "error"),
    [
        ("-1", "inference header size should be in range (0, 2), got: -1"),
        ("3", "inference header size should be in range (0, 2), got: 3"),
        ("abc", f"Unable to parse {LENGTH}, got: abc"),
        (
            "99999999999",
            f"Unable to parse {LENGTH}, value is out of range [ -2147483648, 2147483647 ], got: 99999999999",
        ),
    ],
)
def test_the_length_of_the_json(frontend: Frontend, length: str, error: str) -> None:
    answer = ask(frontend.address, "POST", INFER, b"{}", **{LENGTH: length})
    assert (answer.status, answer.error) == (400, error)


def test_size_limits(frontend: Frontend) -> None:
    size = (4 << 20) + 1
    for headers, begin in (
        ({}, f"request JSON size of {size} bytes exceeds"),
        ({LENGTH: "0"}, f"Raw input has a byte_size ({size} bytes) that exceeds"),
    ):
        answer = ask(frontend.address, "POST", INFER, bytes(size), **headers)
        assert answer.status == 400
        assert answer.error.startswith(begin)
        assert answer.error.endswith("Use --http-max-input-size to increase the limit.")


def test_blocks_of_refused_requests_come_back(broker: FakeBroker) -> None:
    frontend = broker.frontend("http")
    good, length = framed([250_000], bytes(1_000_000))
    for _ in range(3):
        assert ask(frontend.address, "POST", INFER, good + b"x", **{LENGTH: length}).status == 400
        assert ask(frontend.address, "POST", INFER, good, **{LENGTH: length}).status == 200
    (region,) = {
        ref.region for m in broker.seen if type(m) is Infer for ref in m.inputs if f"-{frontend.token}-" in ref.region
    }
    assert (Path("/dev/shm") / region).exists()
    offsets = {ref.offset for m in broker.seen if type(m) is Infer for ref in m.inputs if ref.region == region}
    assert len(offsets) == 1  # the same block, again and again


# ----------------------------------------------------------------------------------------------- life


def test_a_client_that_goes_away_cancels_its_request(frontend: Frontend, broker: FakeBroker) -> None:
    body, length = framed([1], b"1234", id="gone")
    with sending(frontend.address, "POST", SLOW, body, **{LENGTH: length}):
        number = seen(broker, "gone").request
    broker.wait_for(lambda message: message == Cancel(number))


def test_a_draining_frontend_finishes_what_it_has(broker: FakeBroker) -> None:
    frontend = broker.frontend("http")
    body, length = framed([1], b"1234", id="busy")
    with (
        sending(frontend.address, "GET", "/v2") as idle,
        sending(frontend.address, "POST", SLOW, body, **{LENGTH: length}) as busy,
    ):
        assert idle.getresponse().read()
        seen(broker, "busy")
        broker.stop(frontend.token)
        assert idle.sock.recv(1) == b""
        broker.answer_slow()
        assert busy.getresponse().status == 200
    assert frontend.process.wait(SECONDS) == 0


def test_a_drain_ends_in_time(broker: FakeBroker) -> None:
    frontend = broker.frontend("http", exit_timeout_secs=2)
    body, length = framed([1], b"1234", id="stuck")
    with sending(frontend.address, "POST", SLOW, body, **{LENGTH: length}):
        seen(broker, "stuck")
        began = time.monotonic()
        broker.stop(frontend.token)
        assert frontend.process.wait(SECONDS) == 0
        assert time.monotonic() - began < 3.9


def test_the_metrics_page(broker: FakeBroker) -> None:
    broker.metrics = [{"name": "nv_x", "type": "counter", "help": "h", "samples": [({"model": "m"}, 1.0, "")]}]
    frontend = broker.frontend("metrics")
    for path in ("/metrics", "/metrics/"):
        answer = ask(frontend.address, "GET", path)
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert answer.body == b'# HELP nv_x h\n# TYPE nv_x counter\nnv_x{model="m"} 1\n'
    assert ask(frontend.address, "GET", "/other")[::3] == (200, b"")
    assert ask(frontend.address, "POST", "/metrics")[:2] == (405, "Not Allowed")
