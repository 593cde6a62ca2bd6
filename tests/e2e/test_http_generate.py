"""Generate and its event streams through the whole server, on a model that answers once and on a decoupled one."""

import http.client
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.http import ask, next_event, sending
from tests.support.repository import instances, tensor, write_echo, write_model
from tests.support.server import Server
from tests.support.waiting import until

SECONDS = 60.0
EMPTY, LAST, ERROR = range(3)
"""How the model `repeat` ends, see `models/repeat.py`."""


class Generator(NamedTuple):
    """A server with the models `repeat` and `echo`, and the directory of `repeat`'s records."""

    address: str
    records: Path

    def sent(self, request_id: str) -> int:
        """Responses that `repeat` has sent to a request."""
        record = self.records / request_id
        return record.stat().st_size if record.exists() else 0

    def stream(self, request_id: str, count: int, size: int = 1, end: int = EMPTY) -> tuple[int, list[Any]]:
        """Everything that `repeat` answers: the status, and the number of each event or its error."""
        body = {"id": request_id, "ORDER": [count, size, end]}
        answer = ask(self.address, "POST", "/v2/models/repeat/generate_stream", body)
        assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        return answer.status, [_told(json.loads(line[6:])) for line in answer.body.split(b"\n\n") if line]


def _told(event: Any) -> Any:
    if "error" in event:
        return event["error"]
    assert event["model_name"] == "repeat"
    numbers = event["OUT"] if isinstance(event["OUT"], list) else [event["OUT"]]
    (number,) = set(numbers)
    return number


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Generator]:
    directory = tmp_path_factory.mktemp("generator")
    records = directory / "records"
    records.mkdir()
    server = Server(directory / "server")
    write_echo(server.repository, "echo")
    io = f"input [ {tensor('ORDER', 'TYPE_INT32', '[ 3 ]')} ]\noutput [ {tensor('OUT', 'TYPE_INT32')} ]\n"
    more = f'parameters {{ key: "directory" value {{ string_value: "{records}" }} }}\n{instances(1)}\n'
    decoupled = "model_transaction_policy { decoupled: true }\n"
    write_model(server.repository, "repeat", f'backend: "python"\n{io}{more}{decoupled}', "repeat")
    with server:
        yield Generator(server.address("http"), records)


def test_a_model_that_answers_once(generator: Generator) -> None:
    body = {"id": "7", "IN": [1, 2.5, 3], "unused": True}
    expected = {"OUT": [1.0, 2.5, 3.0], "id": "7", "model_name": "echo", "model_version": "1"}
    assert ask(generator.address, "POST", "/v2/models/echo/generate", body).json == expected
    answer = ask(generator.address, "POST", "/v2/models/echo/versions/1/generate_stream", body)
    assert json.loads(answer.body.removeprefix(b"data: ")) == expected


def test_a_thousand_events_none_lost_none_reordered(generator: Generator) -> None:
    assert generator.stream("thousand", 1000) == (200, list(range(1000)))
    assert generator.stream("large", 100, 5000, LAST) == (200, list(range(100)))


def test_streams_side_by_side(generator: Generator) -> None:
    with ThreadPoolExecutor(8) as threads:
        found = threads.map(lambda n: generator.stream(f"side-{n}", 50 + n, 1 + 400 * n), range(8))
    assert list(found) == [(200, list(range(50 + n))) for n in range(8)]


def test_how_streams_end(generator: Generator) -> None:
    assert generator.stream("none", 0) == (200, [])
    assert generator.stream("last", 3, 1, LAST) == (200, [0, 1, 2])
    assert generator.stream("error", 3, 1, ERROR) == (200, [0, 1, 2, "that was it"])
    assert generator.stream("error-first", 0, 1, ERROR) == (503, ["that was it"])


def test_generate_wants_one_response(generator: Generator) -> None:
    path = "/v2/models/repeat/generate"
    for end in (EMPTY, LAST):
        assert ask(generator.address, "POST", path, {"id": f"one-{end}", "ORDER": [1, 1, end]}).json["OUT"] == 0
    for count in (0, 2, 100):
        answer = ask(generator.address, "POST", path, {"id": f"not-one-{count}", "ORDER": [count, 1, EMPTY]})
        assert (answer.status, answer.error.split(",")[0]) == (
            200,
            "generate expects model to produce exactly 1 response",
        )
    failed = ask(generator.address, "POST", path, {"id": "failed", "ORDER": [0, 1, ERROR]})
    assert (failed.status, failed.error) == (503, "that was it")


def test_a_slow_reader_stops_the_model_and_loses_nothing(generator: Generator) -> None:
    count, size = 2000, 2000
    body = json.dumps({"id": "slow", "ORDER": [count, size, EMPTY]})
    with sending(generator.address, "POST", "/v2/models/repeat/generate_stream", body) as connection:
        response = connection.getresponse()
        assert _told(next_event(response)) == 0
        sent = _standstill(generator, "slow")
        assert sent < count
        assert [_told(next_event(response)) for _ in range(1, count)] == list(range(1, count))
        assert response.read() == b""
    assert generator.sent("slow") == count


def test_a_client_that_goes_away_cancels(generator: Generator) -> None:
    body = json.dumps({"id": "gone", "ORDER": [10**9, 1, EMPTY]})
    with sending(generator.address, "POST", "/v2/models/repeat/generate_stream", body) as connection:
        response = connection.getresponse()
        assert [_told(next_event(response)) for _ in range(100)] == list(range(100))
    until((generator.records / "gone.cancelled").exists, SECONDS, "the model knows that its client has gone")
    assert generator.stream("next", 2) == (200, [0, 1])


def test_a_decoupled_model_takes_no_plain_inference(generator: Generator) -> None:
    answer = ask(generator.address, "POST", "/v2/models/repeat/infer", {"inputs": []})
    text = "HTTP end point doesn't support models with decoupled transaction policy"
    assert (answer.status, answer.error) == (http.client.NOT_IMPLEMENTED, text)


def _standstill(generator: Generator, request_id: str) -> int:
    """How much `repeat` has sent when it sends no more: nothing new in a second."""
    seen = [0] * 50

    def look() -> bool:
        seen.append(generator.sent(request_id))
        return seen[-1] > 0 and len(set(seen[-50:])) == 1

    until(look, SECONDS, "the model has stopped")
    return seen[-1]
