"""Copies for the response cache: what is kept, what is not, and that all memory comes back."""

import itertools
import os
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from broker.messages import ErrorCode, Forget, Item, Keep, Kept, Message, RegionOpened
from shm.region import name_for, sweep
from tests.unit.workers.support import request
from workers import keeping
from workers.errors import BackendError
from workers.keeping import Keeping
from workers.outcome import Output, Response

LARGE = bytes(range(256)) * 16


def response(*data: bytes) -> Response:
    return Response([Output(f"O{i}", "UINT8", (len(d),), d) for i, d in enumerate(data)], {"p": 1})


def requested(item: Item, response: Response) -> list[Output]:
    """What a request asks for."""
    return [output for output in response.outputs if not item.outputs or output.name in item.outputs]


class Kit:
    """A Keeping and what it has sent."""

    def __init__(self, server: str) -> None:
        self.sent: list[Message] = []
        self.keeping = Keeping(map(partial(name_for, server, "w1"), itertools.count()), self.sent.append, requested)

    def kept(self) -> list[Kept]:
        return [message for message in self.sent if isinstance(message, Kept)]


@pytest.fixture
def kit() -> Iterator[Kit]:
    server = os.urandom(4).hex()
    yield Kit(server)
    sweep(server)


def test_small_responses_travel_in_the_message(kit: Kit) -> None:
    kit.keeping.want(Keep(5, (1,), 1000))
    kit.keeping.keep(5, [request(), request()], [response(b"no"), response(b"yes", b"")])
    (kept,) = kit.sent
    assert isinstance(kept, Kept)
    assert (kept.attempt, kept.item, [ref.data for ref in kept.outputs], kept.parameters) == (
        (5, 1, [b"yes", b""], {"p": 1})
    )
    assert kept.ns >= 0
    kit.keeping.keep(5, [request(), request()], [response(b"no"), response(b"yes")])
    assert len(kit.sent) == 1, "what was wanted once is kept once"


def test_large_responses_lie_in_a_region_until_they_are_forgotten(kit: Kit) -> None:
    kit.keeping.want(Keep(5, (0,), 10_000))
    kit.keeping.keep(5, [request()], [response(LARGE, LARGE)])
    assert isinstance(kit.sent[0], RegionOpened), "readers map it before a reference comes"
    (kept,) = kit.kept()
    assert {ref.region for ref in kept.outputs} == {kit.sent[0].name}
    assert kit.keeping.trim()[0] == 2 * len(LARGE)
    kit.keeping.forget(Forget((kept.outputs[0].generation, 999)))
    assert kit.keeping.trim()[0] == len(LARGE)
    kit.keeping.forget(Forget(tuple(ref.generation for ref in kept.outputs)))
    assert kit.keeping.trim()[0] == 0


def test_only_what_was_asked_for_is_kept(kit: Kit) -> None:
    kit.keeping.want(Keep(5, (0,), 3))
    kit.keeping.keep(5, [request()._replace(outputs=("O1",))], [response(LARGE, b"abc")])
    (kept,) = kit.kept()
    assert [ref.name for ref in kept.outputs] == ["O1"]


@pytest.mark.parametrize(
    "outcome",
    [response(b"more than fits"), BackendError(ErrorCode.INTERNAL, "no"), None],
    ids=["large", "error", "stream"],
)
def test_what_is_not_kept(kit: Kit, outcome: Response | BackendError | None) -> None:
    kit.keeping.want(Keep(5, (0,), 5))
    kit.keeping.keep(5, [request()], [outcome])
    assert kit.sent == []


def test_without_room_nothing_is_kept_and_nothing_lost(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    free: Callable[[], tuple[int, int]] = lambda: (1 << 22, 1 << 22)  # noqa: E731
    monkeypatch.setattr(keeping, "free_bytes", free)
    kit.keeping.want(Keep(5, (0,), 1 << 30))
    kit.keeping.keep(5, [request()], [response(bytes(1 << 20), bytes(3 << 20))])
    assert kit.kept() == []
    assert kit.keeping.trim()[0] == 0
