"""The generate extension as a process: one answer, many events, errors at every point, slow and vanishing clients."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from broker.messages import STREAM_CREDIT, Cancel, Consumed, Infer
from tests.support.fake_broker import FakeBroker, Frontend
from tests.support.http import Answer, ask, exchange, next_event, sending

GENERATE = "/v2/models/{}/generate"
STREAM = "/v2/models/{}/generate_stream"
EVENTS = "text/event-stream; charset=utf-8"


@pytest.fixture(scope="module")
def broker() -> Iterator[FakeBroker]:
    with FakeBroker(http_max_input_size=1 << 20) as fake:
        yield fake


@pytest.fixture(scope="module")
def address(broker: FakeBroker) -> str:
    frontend: Frontend = broker.frontend("http")
    return frontend.address


def events(answer: Answer) -> list[Any]:
    assert answer.headers["Content-Type"] == EVENTS
    assert answer.headers["Transfer-Encoding"] == "chunked"
    *texts, rest = answer.body.split(b"\n\n")
    assert rest == b""
    assert all(text.startswith(b"data: ") for text in texts)
    return [json.loads(text[6:]) for text in texts]


def request_of(broker: FakeBroker, request_id: str) -> Infer:
    infer: Infer = broker.wait_for(lambda message: type(message) is Infer and message.request_id == request_id)
    return infer


def test_one_answer(address: str) -> None:
    answer = ask(address, "POST", GENERATE.format("echo"), {"id": "7", "X": [1, 2], "S": "text", "temperature": 0.5})
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    assert answer.body.decode() == (
        '{"S":"text","X":[1.0,2.0],"id":"7","model_name":"echo","model_version":"1","temperature":0.5}'
    )


def test_one_event(address: str) -> None:
    (event,) = events(ask(address, "POST", STREAM.format("echo"), {"X": 1}))
    assert event == {"X": 1.0, "model_name": "echo", "model_version": "1"}


def test_large_tensors_go_through_shared_memory(address: str, broker: FakeBroker) -> None:
    numbers = [float(n) for n in range(50_000)]
    for path in (GENERATE, STREAM):
        answer = ask(address, "POST", path.format("echo"), {"X": numbers, "S": "x" * 2000})
        found = answer.json if path == GENERATE else events(answer)[0]
        assert (found["X"], found["S"]) == (numbers, "x" * 2000)
    assert broker.lent_blocks == 0


def test_a_thousand_events_in_order(address: str) -> None:
    found = events(ask(address, "POST", STREAM.format("stream"), {"count": 1000}))
    assert [event["N"] for event in found] == list(range(1000))


@pytest.mark.parametrize("count", [0, 2, 100])
def test_generate_wants_exactly_one_response(address: str, count: int) -> None:
    answer = ask(address, "POST", GENERATE.format("stream"), {"count": count})
    assert answer.status == 200
    assert answer.error == (
        "generate expects model to produce exactly 1 response, use generate stream for model that generates various "
        "number of responses"
    )


def test_generate_on_a_decoupled_model_that_answers_once(address: str) -> None:
    assert ask(address, "POST", GENERATE.format("stream"), {"count": 1}).json["N"] == 0
    failed = ask(address, "POST", GENERATE.format("stream"), {"count": 1, "fails": True})
    assert (failed.status, failed.error) == (500, "it broke")


def test_a_stream_without_events(address: str) -> None:
    answer = ask(address, "POST", STREAM.format("stream"), {"count": 0})
    assert (answer.status, events(answer)) == (200, [])


def test_errors_before_the_request_is_queued(address: str) -> None:
    unknown = "Request for unknown model: 'nope' is not found"
    encoding = "Unsupported content-encoding, only 'identity' is supported."
    limit = "request JSON size of 1048577 bytes exceeds the maximum allowed input size of 1048576 bytes. "
    for path in (GENERATE, STREAM):
        for model, body, headers, status, error in (
            ("nope", "hello", {}, 404, unknown),
            ("echo", "hello", {}, 500, "failed to parse the request JSON buffer: Invalid value. at 0"),
            ("echo", "", {}, 500, "failed to parse the request JSON buffer: The document is empty. at 0"),
            ("echo", {}, {"Content-Encoding": "gzip"}, 400, encoding),
            ("echo", " " * (2**20 + 1), {}, 400, f"{limit}Use --http-max-input-size to increase the limit."),
            ("refusing", {}, {}, 503, "the queue is full"),
        ):
            answer = ask(address, "POST", path.format(model), body, **headers)
            assert (answer.status, answer.error) == (status, error)
            assert answer.headers["Content-Type"] == "application/json"


def test_an_error_as_the_first_response(address: str) -> None:
    answer = ask(address, "POST", GENERATE.format("broken"), {})
    assert (answer.status, answer.error) == (500, "it broke")
    answer = ask(address, "POST", STREAM.format("broken"), {})
    assert (answer.status, events(answer)) == (500, [{"error": "it broke"}])
    answer = ask(address, "POST", STREAM.format("stream"), {"count": 0, "fails": True})
    assert (answer.status, events(answer)) == (500, [{"error": "it broke"}])


def test_an_error_later_ends_the_stream(address: str) -> None:
    answer = ask(address, "POST", STREAM.format("stream"), {"count": 3, "fails": True})
    assert answer.status == 200
    assert [event.get("N", event.get("error")) for event in events(answer)] == [0, 1, 2, "it broke"]


def test_the_connection_lives_on(address: str) -> None:
    with sending(address, "POST", STREAM.format("stream"), json.dumps({"count": 2})) as connection:
        assert len(connection.getresponse().read().split(b"\n\n")) == 3
        connection.request("GET", "/v2/health/live")
        assert connection.getresponse().status == 200


def test_http_1_0_gets_no_chunks(address: str) -> None:
    body = b'{"count":2}'
    head = f"POST {STREAM.format('stream')} HTTP/1.0\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    found = exchange(address, head + body)
    assert found.startswith(b"HTTP/1.0 200 OK\r\n")
    assert found.split(b"\r\n\r\n", 1)[1].count(b"data: ") == 2


def test_events_arrive_one_by_one_and_a_vanished_client_cancels(address: str, broker: FakeBroker) -> None:
    body = json.dumps({"count": 10**9, "id": "vanishing"})
    with sending(address, "POST", STREAM.format("stream"), body) as connection:
        response = connection.getresponse()
        assert [next_event(response)["N"] for _ in range(100)] == list(range(100))
    number = request_of(broker, "vanishing").request
    broker.wait_for(lambda message: message == Cancel(number))


def test_a_client_that_does_not_read_stops_the_model(address: str, broker: FakeBroker) -> None:
    """What is on its way fills the sockets; then nothing more is taken from the model."""
    body = json.dumps({"count": 10**9, "id": "slow", "padding": "x"})
    with sending(address, "POST", STREAM.format("stream"), body) as connection:
        number = request_of(broker, "slow").request
        taken, before = -1, -2
        while taken != before:
            before = taken
            time.sleep(0.5)  # a pause in which a stream that flows has thousands of events
            taken = sum(m.responses for m in broker.seen if type(m) is Consumed and m.request == number)
        assert ask(address, "POST", GENERATE.format("echo"), {"X": 1}).status == 200
        response = connection.getresponse()
        found = [next_event(response)["N"] for _ in range(taken + STREAM_CREDIT)]
        assert found == list(range(taken + STREAM_CREDIT))
    broker.wait_for(lambda message: message == Cancel(number))


def test_balancers_are_told_the_load_when_they_ask(address: str, broker: FakeBroker) -> None:
    blocks = {"used": 3.0, "max": 4.0, "tokens_per": 64.0}
    samples = [({"kv_cache_block_type": kind}, number, "") for kind, number in blocks.items()]
    broker.metrics = [{"name": "nv_trt_llm_kv_cache_block_metrics", "type": "gauge", "help": "h", "samples": samples}]
    text = "TEXT named_metrics.kv_cache_utilization=0.750000, named_metrics.max_token_capacity=256"
    for path in (GENERATE, STREAM):
        asked = ask(address, "POST", path.format("echo"), {"X": 1}, endpoint_load_metrics_format="text")
        assert asked.headers["endpoint-load-metrics"] == text
        assert "endpoint-load-metrics" not in ask(address, "POST", path.format("echo"), {"X": 1}).headers
