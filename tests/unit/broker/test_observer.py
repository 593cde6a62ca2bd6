"""Traces wait for the word that their responses have left, and never for ever."""

from typing import Any

import pytest

from broker.effects import Effect, Send
from broker.messages import Delivered, ErrorCode, Part, TensorsTraced, Traced
from broker.models import Version
from broker.request import Request
from broker.tracing import is_delivery_traced
from tests.unit.broker.describe import description, infer
from tests.unit.broker.world import Process, Record, World

FILE = "triton,file=/tmp/trace.json"


class Observed(World):
    """A world in which every request is traced."""

    def __init__(self, *levels: str) -> None:
        self.traces: list[dict[str, Any]] = []  # what was exported
        super().__init__(trace_config=(FILE, "rate=1", *[f"level={level}" for level in levels or ("TIMESTAMPS",)]))
        self.start(description("m"))

    def apply(self, effects: list[Effect]) -> None:
        self.traces += [e.message.record for e in effects if isinstance(e, Send) and isinstance(e.message, Traced)]
        super().apply(effects)

    def answer(self, code: ErrorCode = ErrorCode.OK, *told: Any) -> tuple[Process, Record]:
        """A request is executed and answered."""
        record = self.ask(self.frontends[0], infer(0))
        (worker,) = self.workers
        attempt = self.begin(worker).attempt
        self.say(worker, *[TensorsTraced(attempt, 0, activity, tensors) for activity, tensors in told])
        self.finish(worker, code)
        self.deliver(worker)
        return self.frontends[0], record


def names(trace: dict[str, Any]) -> list[str]:
    return [name for name, _ in trace["timestamps"]]


def test_a_trace_says_when_its_response_was_sent() -> None:
    world = Observed()
    frontend, record = world.answer()
    assert record.responses[0].part & Part.TRACED
    assert world.traces == []
    world.say(frontend, Delivered(record.infer.request, 5, 7))
    world.deliver(frontend)
    (trace,) = world.traces
    assert trace["timestamps"][-2:] == [("HTTP_SEND_START", 5), ("HTTP_SEND_END", 7)]
    world.say(frontend, Delivered(record.infer.request, 5, 7), Delivered(99, 0, 0))
    world.deliver(frontend)
    assert len(world.traces) == 1, "told twice, or of nothing"


def test_a_response_that_nobody_delivers_is_traced_without_it() -> None:
    world = Observed()
    world.answer()
    for _ in range(7):
        world.advance(1.0)
    (trace,) = world.traces
    assert names(trace)[-1] == "REQUEST_END"


@pytest.mark.parametrize("is_killed", [True, False])
def test_no_trace_is_lost_with_a_frontend_or_at_the_end(is_killed: bool) -> None:
    world = Observed()
    frontend, _ = world.answer()
    if is_killed:
        world.bury(frontend)
    else:
        world.apply(world.core.drain("SIGTERM", world.now))
        world.settle()
    assert len(world.traces) == 1


def test_errors_are_sent_like_other_responses() -> None:
    world = Observed()
    frontend, record = world.answer(ErrorCode.INTERNAL)
    world.say(frontend, Delivered(record.infer.request, 5, 7))
    world.deliver(frontend)
    (trace,) = world.traces
    assert trace["error"]
    assert names(trace)[-1] == "HTTP_SEND_END"


def test_a_step_of_an_ensemble_and_a_call_have_no_client() -> None:
    version = Version.create(description("m"), 1)
    fields: dict[str, Any] = {"trace": {"id": 1}}
    own = Request("h1", infer(1), version, (), 1, 0.0, **fields)
    assert is_delivery_traced(own)
    for inner in ("caller", "step"):
        assert not is_delivery_traced(Request("h1", infer(1), version, (), 1, 0.0, **fields, **{inner: object()}))


def test_what_nobody_waits_for_is_traced_at_once() -> None:
    world = Observed()
    world.ask(world.frontends[0], infer(0))
    world.cancel(world.ask(world.frontends[0], infer(0)))
    (trace,) = world.traces
    assert names(trace)[-1] == "REQUEST_END"


def test_tensors_are_those_of_the_last_attempt() -> None:
    world = Observed("TENSORS")
    old, new = (("IN", "1", "1", "FP32"),), (("IN", "2", "1", "FP32"),)
    frontend, record = world.answer(
        ErrorCode.OK, ("TENSOR_QUEUE_INPUT", old), ("TENSOR_QUEUE_INPUT", new), ("TENSOR_BACKEND_OUTPUT", old)
    )
    world.say(frontend, Delivered(record.infer.request, 5, 7))
    world.deliver(frontend)
    (trace,) = world.traces
    assert trace["tensors"] == [("TENSOR_QUEUE_INPUT", *new[0]), ("TENSOR_BACKEND_OUTPUT", *old[0])]


def test_tensors_that_nobody_has_asked_for_are_not_kept() -> None:
    world = Observed("TIMESTAMPS")
    frontend, record = world.answer(ErrorCode.OK, ("TENSOR_QUEUE_INPUT", (("IN", "1", "1", "FP32"),)))
    world.say(frontend, Delivered(record.infer.request, 5, 7))
    world.deliver(frontend)
    assert "tensors" not in world.traces[0]
