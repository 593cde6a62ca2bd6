"""The response cache in the core: hits take no place in the queue, keep their order, and end with what they lie in."""

from typing import Any

import pytest

from broker.effects import Effect, Send
from broker.messages import (
    CachedRead,
    Directory,
    ErrorCode,
    Execute,
    Executed,
    Forget,
    Infer,
    Keep,
    Kept,
    Message,
    ModelRemoved,
    Response,
    Result,
)
from broker.requests import Death
from configs.description import DynamicBatching, QueuePolicy, TensorSpec
from shm.ref import TensorRef
from tests.unit.broker.describe import batching, description, infer
from tests.unit.broker.world import World

CACHED = {"config": {"response_cache": {"enable": True}}}


class Served(World):
    """A model `m` whose responses are cached, with one worker and one frontend."""

    def __init__(self, **changes: Any) -> None:
        super().__init__(cache_config=("local,size=1000000",))
        self.start(description(**{**CACHED, **changes}))
        (self.worker,) = [process.token for process in self.workers]
        (self.frontend,) = [process.token for process in self.frontends]
        self.count = 0

    def tell(self, peer: str, message: Message) -> list[Any]:
        """What the core sends when it hears this, by kind and peer."""
        effects: list[Effect] = self.core.handle(peer, [message], self.now)
        return [effect.message for effect in effects if isinstance(effect, Send)]

    def ask_for(self, digest: bytes, **changes: Any) -> list[Any]:
        self.count += 1
        shape = (1, 4) if "batching" in changes else (4,)
        changes.pop("batching", None)
        question: Infer = infer(self.count, shape=shape, digest=digest, received=self.now - 0.25, **changes)
        return self.tell(self.frontend, question)

    def answer(self, execute: Execute, *outputs: TensorRef, keeps: bool = True) -> list[Any]:
        """A worker answers a batch of one."""
        end = int(self.now * 1e9)
        told = self.tell(self.worker, Kept(execute.attempt, 0, outputs, {"p": 1}, 7)) if keeps else []
        result = Result(ErrorCode.OK, "", outputs, {"p": 1})
        return told + self.tell(self.worker, Executed(execute.attempt, (result,), (end, end, end, end)))

    def executed(self, digest: bytes, *outputs: TensorRef, **changes: Any) -> Response:
        """A request that is not known is executed."""
        keep, execute = self.ask_for(digest, **changes)
        assert isinstance(keep, Keep)
        assert (keep.attempt, keep.items) == (execute.attempt, (0,))
        (response,) = self.answer(execute, *outputs)
        assert isinstance(response, Response)
        return response

    def statistics(self) -> dict[str, Any]:
        found: dict[str, Any] = self.core.models["m"].versions[1].statistics.to_json("m", 1)
        return {**found.pop("inference_stats"), **found}


def small(data: bytes = b"1234") -> TensorRef:
    return TensorRef("OUT", "FP32", (1,), 4, data)


def block(generation: int = 3) -> TensorRef:
    return TensorRef("OUT", "FP32", (1024,), 4096, None, "tidepool-s-w-1", 0, 5, generation)


def test_a_hit_is_answered_at_once_and_counted_as_one() -> None:
    served = Served()
    first = served.executed(b"d", small())
    (again,) = served.ask_for(b"d", request_id="other")
    assert again == first._replace(request=2)
    stats = served.statistics()
    assert (stats["success"]["count"], stats["queue"]["count"], stats["compute_infer"]["count"]) == (2, 2, 1)
    assert stats["cache_hit"] == {"count": 1, "ns": 250_000_000}
    assert stats["cache_miss"] == {"count": 1, "ns": 250_000_007}
    assert (stats["inference_count"], stats["execution_count"]) == (1, 1)
    assert len(served.core.requests) == 0


def test_frontends_are_told_which_models_are_cached() -> None:
    served = Served()
    served.describe(description("plain"))
    frontend = served.frontends[0]
    told = [message for message in frontend.inbox if isinstance(message, Directory)]
    assert told[-1].cached == ("m",)


@pytest.mark.parametrize("changes", [{"decoupled": True}, {"config": {}}], ids=["decoupled", "off"])
def test_models_whose_responses_are_not_cached(changes: dict[str, Any]) -> None:
    served = Served(**changes)
    (execute,) = served.ask_for(b"d")
    assert isinstance(execute, Execute)
    assert served.statistics()["cache_miss"]["count"] == 0


def test_a_hit_takes_no_place_in_a_full_queue() -> None:
    served = Served(batching=DynamicBatching((8,), policies={0: QueuePolicy(max_queue_size=1)}))
    served.executed(b"d", small(), batching=True)
    served.ask_for(b"running", batching=True)
    while not (told := served.ask_for(b"waits", batching=True)):
        pass
    assert "Exceeds maximum queue size" in told[0].error
    (hit,) = served.ask_for(b"d", batching=True)
    assert hit.code == ErrorCode.OK


def test_a_hit_keeps_its_place_in_the_order() -> None:
    served = Served(batching=batching(ordered=True))
    served.executed(b"d", small(), batching=True)
    _, execute = served.ask_for(b"slow", batching=True)
    assert served.ask_for(b"d", batching=True) == []
    responses = served.answer(execute, small())
    assert [response.request for response in responses] == [2, 3]


def test_blocks_are_given_back_after_the_reload_when_they_have_been_read() -> None:
    served = Served()
    served.executed(b"d", block())
    (hit,) = served.ask_for(b"d")
    (ref,) = hit.outputs
    assert (ref.region, ref.offset, ref.slot) == (block().region, block().offset, 0)
    assert ref.generation < 0
    effects = served.core.handle(served.of("repository")[0].token, [ModelRemoved("m")], served.now)
    assert not [e for e in effects if isinstance(e, Send) and isinstance(e.message, Forget)], "it is being read"
    assert served.tell(served.frontend, CachedRead(-ref.generation)) == [Forget((3,))]


def test_what_a_dead_frontend_was_reading_is_given_back() -> None:
    served = Served()
    served.executed(b"d", block())
    served.ask_for(b"d")
    served.tell(served.of("repository")[0].token, ModelRemoved("m"))
    effects = served.core.lost(served.frontend, Death("killed", True, 0, ()), served.now)
    assert Send(served.worker, Forget((3,))) in effects


def test_a_response_that_comes_after_its_version_has_gone_is_not_cached() -> None:
    served = Served()
    _, execute = served.ask_for(b"d")
    served.tell(served.of("repository")[0].token, ModelRemoved("m"))
    told = served.answer(execute, block())
    assert told[0] == Forget((3,))


def test_a_response_that_nobody_waits_for_is_given_back() -> None:
    served = Served()
    assert served.tell(served.worker, Kept(999, 0, (block(),), {}, 1)) == [Forget((3,))]


def test_blocks_of_a_dead_worker_are_not_found_any_more() -> None:
    served = Served()
    served.executed(b"d", block())
    served.core.lost(served.worker, Death("killed", True, 0, ()), served.now)
    assert served.ask_for(b"d") == [], "it waits for the next worker"


def test_outputs_are_as_clients_see_them() -> None:
    served = Served(outputs=(TensorSpec("OUT", "FP32", (1, 1), (1,)),))
    first = served.executed(b"d", small())
    (again,) = served.ask_for(b"d")
    assert first.outputs[0].shape == again.outputs[0].shape == (1, 1)
