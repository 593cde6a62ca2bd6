"""Models that are asked whether they are ready: all instances say yes, the first no counts, nobody waits for ever."""

from typing import cast

import pytest

from broker.effects import Effect, Send
from broker.messages import Answer, CheckReady, ErrorCode, GetModelReady, ReadyChecked
from broker.models import Instance
from broker.readiness import TIMEOUT_SECONDS, Readiness


class Peer:
    """An instance, as far as it matters."""

    def __init__(self, peer: str) -> None:
        self.peer = peer


def instances(*peers: str) -> list[Instance]:
    return cast("list[Instance]", [Peer(peer) for peer in peers])


def question(number: int) -> GetModelReady:
    return GetModelReady(number, "m", -1)


def answers(out: list[Effect]) -> list[tuple[str, int, int, str]]:
    sent = [effect for effect in out if isinstance(effect, Send) and isinstance(effect.message, Answer)]
    return [(s.peer, s.message.request, s.message.code, s.message.error) for s in sent if isinstance(s.message, Answer)]


@pytest.fixture
def out() -> list[Effect]:
    return []


@pytest.fixture
def readiness(out: list[Effect]) -> Readiness:
    return Readiness(out)


def test_all_instances_have_to_say_yes(readiness: Readiness, out: list[Effect]) -> None:
    readiness.ask("h", question(5), instances("w1", "w2"), 0.0)
    assert out == [Send("w1", CheckReady(1)), Send("w2", CheckReady(2))]
    readiness.checked("w1", ReadyChecked(1, ErrorCode.OK, ""))
    assert answers(out) == []
    readiness.checked("w2", ReadyChecked(2, ErrorCode.OK, ""))
    assert answers(out) == [("h", 5, ErrorCode.OK, "")]
    assert readiness.next_deadline() is None


def test_the_first_no_is_the_answer(readiness: Readiness, out: list[Effect]) -> None:
    readiness.ask("h", question(5), instances("w1", "w2"), 0.0)
    readiness.checked("w2", ReadyChecked(2, ErrorCode.UNAVAILABLE, "no"))
    readiness.checked("w1", ReadyChecked(1, ErrorCode.INTERNAL, "neither"))
    assert answers(out) == [("h", 5, ErrorCode.UNAVAILABLE, "no")]


def test_those_who_ask_meanwhile_share_an_answer(readiness: Readiness, out: list[Effect]) -> None:
    readiness.ask("h", question(5), instances("w"), 0.0)
    readiness.ask("g", question(9), instances("w"), 1.0)
    assert [effect for effect in out if isinstance(effect, Send)] == [Send("w", CheckReady(1))]
    readiness.checked("w", ReadyChecked(1, ErrorCode.OK, ""))
    assert answers(out) == [("h", 5, ErrorCode.OK, ""), ("g", 9, ErrorCode.OK, "")]


def test_silence_is_a_no_and_a_late_answer_is_for_nobody(readiness: Readiness, out: list[Effect]) -> None:
    readiness.ask("h", question(5), instances("w"), 10.0)
    assert readiness.next_deadline() == 10.0 + TIMEOUT_SECONDS
    readiness.tick(10.0 + TIMEOUT_SECONDS)
    assert answers(out) == [
        ("h", 5, ErrorCode.UNAVAILABLE, "Timed out waiting for user-defined is_ready() response"),
    ]
    readiness.ask("h", question(6), instances("w"), 20.0)
    readiness.checked("w", ReadyChecked(1, ErrorCode.OK, ""))
    assert len(answers(out)) == 1
    readiness.checked("w", ReadyChecked(2, 99, "odd"))
    assert answers(out)[1] == ("h", 6, ErrorCode.UNKNOWN, "odd")


def test_deaths(readiness: Readiness, out: list[Effect]) -> None:
    readiness.ask("h", question(5), instances("w"), 0.0)
    readiness.ask("g", question(6), instances("w"), 0.0)
    readiness.frontend_lost("g")
    readiness.worker_lost("w")
    assert [(peer, code) for peer, _, code, _ in answers(out)] == [("h", ErrorCode.UNAVAILABLE)]
