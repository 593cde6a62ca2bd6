"""Response senders in a real worker: decoupled models, answers after `execute`, flow control, cancellation."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from broker.messages import (
    COMPLETE,
    STREAM_CREDIT,
    Abandon,
    Credit,
    ErrorCode,
    Execute,
    Executed,
    Part,
    PeerGone,
    Responded,
    Result,
)
from tests.process.test_worker_python import CONFIG, ECHO, ONES, model
from tests.support.worker import READER, FakeBroker, item

DECOUPLED = {**CONFIG, "model_transaction_policy": {"decoupled": True}}
HELPERS = """
FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
def response(self, value, size=1):
    return pb_utils.InferenceResponse([pb_utils.Tensor("OUT", np.full((1, size), value, dtype=np.float32))])
"""
OPEN = Result(ErrorCode.OK, "", (), {}, Part.NONE)
END = Result(ErrorCode.OK, "", (), {}, Part.FINAL)


class Session:
    """A worker with one model, and what it sends to each request."""

    def __init__(self, broker: FakeBroker, directory: Path, body: str, config: dict[str, Any]) -> None:
        self.broker = broker
        broker.loaded("python", model(directory, HELPERS + body), config)

    def start(self, *values: float) -> int:
        """One batch, with a request for each value; its number."""
        attempt = next(self.broker.attempts)
        items = [item(self.broker.ref("IN", np.full((1, 1), value, dtype=np.float32))) for value in values]
        self.broker.send(Execute(attempt, tuple(items)))
        return attempt

    def responded(self) -> Responded:
        """The next response that comes by itself."""
        message = self.broker.wait_for("Responded")
        assert isinstance(message, Responded)
        return message

    def value(self, message: Responded) -> float:
        """The first element of a response's output."""
        return float(self.broker.arrays(message.result)["OUT"].flat[0])

    def executed(self) -> tuple[Result, ...]:
        """What the next batch is answered with."""
        message = self.broker.wait_for("Executed")
        assert isinstance(message, Executed)
        return message.results

    def is_silent(self) -> bool:
        """No response comes by itself while a few beats come."""
        for _ in range(2):
            self.broker.wait_for("Beat")
        return not [m for m in self.broker.seen if isinstance(m, Responded)]

    def used(self) -> int:
        """Bytes of the worker's arena that are in use, by its next but one beat."""
        self.broker.seen.clear()
        self.broker.wait_for("Beat")
        return int(self.broker.wait_for("Beat").shm_used)


REPEAT = """
def execute(self, requests):
    for request in requests:
        sender = request.get_response_sender()
        assert sender is request.get_response_sender()
        count = int(request.inputs()[0].as_numpy()[0, 0])
        for number in range(count):
            sender.send(self.response(number, 2000))
        sender.send(flags=self.FINAL)
"""


def test_no_one_and_three_responses(tmp_path: Path) -> None:
    with FakeBroker() as broker:
        session = Session(broker, tmp_path, REPEAT, DECOUPLED)
        attempt = session.start(0, 1, 3)
        messages = [session.responded() for _ in range(7)]
        assert [m.attempt for m in messages] == [attempt] * 7
        assert [m.item for m in messages] == [0, 1, 1, 2, 2, 2, 2]
        assert [m.result.part for m in messages] == [2, 1, 2, 1, 1, 1, 2]
        assert [session.value(m) for m in messages if m.result.part & Part.CONTENT] == [0, 0, 1, 2]
        assert session.executed() == (OPEN, OPEN, OPEN)
        assert session.used() == 0
        assert broker.stop() == 0


def test_responses_after_execute_from_a_thread(tmp_path: Path) -> None:
    body = """
def initialize(self, args):
    import threading
    self.go = threading.Event()
def execute(self, requests):
    import threading
    senders = [request.get_response_sender() for request in requests]
    if requests[0].inputs()[0].as_numpy()[0, 0] == 0:
        threading.Thread(target=self.answer, args=(senders,)).start()
    else:
        senders[0].send(self.response(9), self.FINAL)
        self.go.set()
def answer(self, senders):
    self.go.wait(30)
    for number, sender in enumerate(reversed(senders)):
        sender.send(self.response(number), self.FINAL)
"""
    with FakeBroker() as broker:
        session = Session(broker, tmp_path, body, DECOUPLED)
        first = session.start(0, 0)
        assert session.executed() == (OPEN, OPEN)
        second = session.start(1)
        messages = [session.responded() for _ in range(3)]
        assert [(m.attempt, m.item) for m in messages] == [(second, 0), (first, 1), (first, 0)]
        assert [session.value(m) for m in messages] == [9, 0, 1]
        assert all(m.result.part == COMPLETE for m in messages)


def test_async_executes_run_beside_each_other_on_one_loop(tmp_path: Path) -> None:
    body = """
async def execute(self, requests):
    import asyncio
    loop = asyncio.get_running_loop()
    self.loops = getattr(self, "loops", set()) | {loop}
    value = int(requests[0].inputs()[0].as_numpy()[0, 0])
    if value == 1:
        self.event = asyncio.Event()
        await self.event.wait()
    elif value == 2:
        self.event.set()
    else:
        raise ValueError("no")
    sender = requests[0].get_response_sender()
    for _ in range(20):
        sender.send(self.response(value * 10 + len(self.loops)))
    sender.send(flags=self.FINAL)
"""
    with FakeBroker() as broker:
        session = Session(broker, tmp_path, body, DECOUPLED)
        first, second = session.start(1), session.start(2)
        values: dict[int, list[float]] = {first: [], second: []}
        for _ in range(2 * STREAM_CREDIT):
            message = session.responded()
            values[message.attempt].append(session.value(message))
        assert values == {first: [11.0] * STREAM_CREDIT, second: [21.0] * STREAM_CREDIT}
        broker.send(Credit(second, 0, 100))
        assert [session.responded().result.part for _ in range(5)] == [1, 1, 1, 1, 2]
        broker.send(Abandon(first, 0))
        assert session.responded() == Responded(first, 0, END)
        third = session.start(3)
        failed = session.responded()
        assert (failed.attempt, failed.result.code) == (third, ErrorCode.INTERNAL)
        assert "message: ValueError: no\n\nAt:\n" in failed.result.error
        assert broker.stop() == 0


def test_a_sender_waits_for_its_own_client_only(tmp_path: Path) -> None:
    body = """
def execute(self, requests):
    import threading
    def answer(sender, count):
        for number in range(count):
            sender.send(self.response(number, 1000))
        sender.send(flags=self.FINAL)
    for request in requests:
        count = int(request.inputs()[0].as_numpy()[0, 0])
        threading.Thread(target=answer, args=(request.get_response_sender(), count)).start()
"""
    with FakeBroker() as broker:
        session = Session(broker, tmp_path, body, DECOUPLED)
        slow = session.start(STREAM_CREDIT + 10)
        assert [session.value(session.responded()) for _ in range(STREAM_CREDIT)] == list(range(STREAM_CREDIT))
        assert session.is_silent()
        session.start(3)
        assert [session.responded().result.part for _ in range(4)] == [1, 1, 1, 2]
        broker.send(Credit(slow, 0, 4))
        assert [session.value(session.responded()) for _ in range(4)] == [16, 17, 18, 19]
        assert session.is_silent()
        broker.send(Abandon(slow, 0))
        assert session.responded() == Responded(slow, 0, END)
        assert broker.stop() == 0


def test_memory_of_responses_that_nobody_will_read_comes_back(tmp_path: Path) -> None:
    with FakeBroker() as broker:
        session = Session(broker, tmp_path, REPEAT, DECOUPLED)
        session.start(STREAM_CREDIT)
        assert [session.responded().result.part for _ in range(STREAM_CREDIT + 1)][-1] == Part.FINAL
        assert session.used() == STREAM_CREDIT * 8192
        broker.send(PeerGone(READER))
        assert session.used() == 0
        session.start(STREAM_CREDIT)
        assert [session.responded().result.part for _ in range(STREAM_CREDIT + 1)][-1] == Part.FINAL
        assert session.used() == 0


def test_is_cancelled_while_execute_runs(tmp_path: Path) -> None:
    body = """
def execute(self, requests):
    import time
    request = requests[0]
    before = request.is_cancelled()
    pb_utils.Logger.log_info("looking")
    deadline = time.monotonic() + 30
    while not request.is_cancelled() and time.monotonic() < deadline:
        time.sleep(0.01)
    return [self.response(before * 10 + request.is_cancelled()) for _ in requests]
"""
    with FakeBroker() as broker:
        session = Session(broker, tmp_path, body, CONFIG)
        attempt = session.start(0)
        broker.wait_for("Log")
        broker.send(Abandon(attempt, 0))
        (result,) = session.executed()
        assert broker.arrays(result)["OUT"][0, 0] == 1
        told_before = next(broker.attempts)
        broker.send(Abandon(told_before, 0), Execute(told_before, (item(broker.ref("IN", ONES)),)))
        (result,) = session.executed()
        assert broker.arrays(result)["OUT"][0, 0] == 11


def test_senders_in_the_default_mode(tmp_path: Path) -> None:
    body = """
def execute(self, requests):
    import threading
    senders = [request.get_response_sender() for request in requests[:2]]
    senders[0].send(self.response(1))
    errors = []
    for sender, arguments in (
        (senders[0], (self.response(2),)),
        (senders[1], (None, self.FINAL)),
        (senders[1], ()),
        (senders[1], (self.response(2), 2)),
    ):
        try:
            sender.send(*arguments)
        except pb_utils.TritonModelException as error:
            errors.append(str(error))
    senders[0].send(flags=self.FINAL)
    for arguments in ((self.response(3),), (None, self.FINAL)):
        try:
            senders[0].send(*arguments)
        except pb_utils.TritonModelException as error:
            errors.append(str(error))
    def later():
        senders[1].send(self.response(4), self.FINAL)
    texts = pb_utils.Tensor("OUT", np.array(errors, dtype=np.object_))
    timer = threading.Timer(0.2, later)
    timer.start()
    return [None, None, pb_utils.InferenceResponse([texts])][: len(requests)]
"""
    with FakeBroker() as broker:
        session = Session(broker, tmp_path, body, CONFIG)
        attempt = session.start(0, 0, 0)
        at_once = session.responded()
        assert (at_once.item, at_once.result.part, session.value(at_once)) == (0, COMPLETE, 1)
        results = session.executed()
        assert results[:2] == (OPEN, OPEN)
        assert [text.decode() for text in broker.arrays(results[2])["OUT"]] == [
            "Unable to send response. Non-decoupled model cannot send more than one response.",
            "Unable to send response. Non-decoupled model cannot send complete final before sending a response.",
            "Inference Response object must be provided when the response flags is set to zero.",
            "Unable to send response. Unsupported flag provided.",
            "Unable to send response. Non-decoupled model cannot send more than one response.",
            "Unable to send response. Response sender has been closed.",
        ]
        later = session.responded()
        assert (later.attempt, later.item, session.value(later)) == (attempt, 1, 4)
        assert broker.stop() == 0


@pytest.mark.parametrize(
    ("body", "config", "text"),
    [
        ("return None", CONFIG, "Expected a list in the execute return, found type '<class 'NoneType'>'."),
        ("return [None]", CONFIG, "function return list, found type '<class 'NoneType'>'."),
        (
            "requests[0].is_cancelled(); return [None]",
            CONFIG,
            "function return list, found type '<class 'NoneType'>'.",
        ),
        ("sender = requests[0].get_response_sender()", CONFIG, "has dropped the request's response sender without"),
        ("pass", DECOUPLED, "has dropped the request's response sender without TRITONSERVER_RESPONSE_COMPLETE_FINAL"),
        (
            "return []",
            DECOUPLED,
            "Failed to process the request(s) for model 'model_0_0', message: Python model 'model_0_0' is using the "
            "decoupled mode and the execute function must return None.",
        ),
        ("raise KeyError('x')", DECOUPLED, "message: KeyError: 'x'"),
        (
            "requests[0].get_response_sender().send(pb_utils.InferenceResponse(error=pb_utils.TritonError('bad')))",
            DECOUPLED,
            "bad",
        ),
    ],
)
def test_a_request_that_is_not_answered_is_an_error(
    tmp_path: Path, body: str, config: dict[str, Any], text: str
) -> None:
    with FakeBroker() as broker:
        session = Session(broker, tmp_path, f"def execute(self, requests):\n    {body}\n", config)
        session.start(1)
        (result,) = session.executed()
        if result.part == Part.NONE:
            result = session.responded().result
        assert result.code == ErrorCode.INTERNAL
        assert text in result.error
        assert result.part == COMPLETE
        assert broker.stop() == 0


def test_an_exception_fails_only_what_is_open(tmp_path: Path) -> None:
    body = """
def execute(self, requests):
    first, second = [request.get_response_sender() for request in requests]
    first.send(self.response(1), self.FINAL)
    second.send(self.response(2))
    raise ValueError("then")
"""
    with FakeBroker() as broker:
        session = Session(broker, tmp_path, body, DECOUPLED)
        session.start(0, 0)
        messages = [session.responded() for _ in range(3)]
        assert [(m.item, m.result.code, m.result.part) for m in messages] == [
            (0, ErrorCode.OK, COMPLETE),
            (1, ErrorCode.OK, Part.CONTENT),
            (1, ErrorCode.INTERNAL, COMPLETE),
        ]
        assert session.executed() == (OPEN, OPEN)


def test_a_worker_beats_while_a_model_with_senders_executes(tmp_path: Path) -> None:
    body = """
def execute(self, requests):
    import time
    sender = requests[0].get_response_sender()
    time.sleep(2.5)
    sender.send(flags=self.FINAL)
"""
    with FakeBroker() as broker:
        session = Session(broker, tmp_path, body, DECOUPLED)
        session.start(0)
        began = time.monotonic()
        broker.seen.clear()
        broker.wait_for("Beat")
        broker.wait_for("Beat")
        assert time.monotonic() - began < 2.5
        assert session.responded().result == END


def test_models_without_senders_have_no_second_thread(tmp_path: Path) -> None:
    body = ECHO.replace(
        "    return responses",
        "    import threading\n    assert threading.active_count() == 1\n    return responses",
    )
    with FakeBroker() as broker:
        session = Session(broker, tmp_path, body, CONFIG)
        for _ in range(2):
            session.start(1)
            assert session.executed()[0].code == ErrorCode.OK
