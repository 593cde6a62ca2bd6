"""A cache in another server, as the core sees it: requests are in nobody's queue until it has answered, or has died."""

from typing import Any

import pytest

from broker.effects import Effect, Kill, Send
from broker.messages import (
    PROTOCOL,
    CacheFound,
    CacheGet,
    CacheStored,
    Cancel,
    Directory,
    ErrorCode,
    Execute,
    Executed,
    Forget,
    Hello,
    Keep,
    Kept,
    Message,
    ModelRemoved,
    PeerGone,
    RegionClosed,
    RegionOpened,
    Response,
    Result,
    Welcome,
)
from broker.requests import Death
from configs.description import DynamicBatching, QueuePolicy
from shm.ref import TensorRef
from tests.unit.broker.describe import batching, description, infer
from tests.unit.broker.world import World

CACHED = {"config": {"response_cache": {"enable": True}}}
DEATH = Death("killed", True, 0, ())


class Served(World):
    """A model `m` whose responses are cached, one worker, one frontend, and the cache's process."""

    def __init__(self, **changes: Any) -> None:
        super().__init__(cache_config=("redis,host=h", "redis,password=p"))
        self.start(description(**{**CACHED, **changes}))
        self.worker = self.workers[0].token
        (self.frontend,) = [process.token for process in self.frontends]
        (self.cache,) = [process.token for process in self.of("cache")]
        self.count = 0

    def effects(self, peer: str, message: Message) -> list[Effect]:
        return self.core.handle(peer, [message], self.now)

    def tell(self, peer: str, message: Message) -> list[Any]:
        """The messages that the core sends when it hears this."""
        return sent(self.effects(peer, message))

    def ask_for(self, digest: bytes = b"d", shape: tuple[int, ...] = (4,)) -> list[Any]:
        self.count += 1
        return self.tell(self.frontend, infer(self.count, shape=shape, digest=digest, received=self.now - 0.25))

    def counted(self) -> dict[str, int]:
        found = self.core.models["m"].versions[1].statistics.to_json("m", 1)
        return {name: duration["count"] for name, duration in found["inference_stats"].items()}


def sent(effects: list[Effect]) -> list[Any]:
    return [effect.message for effect in effects if isinstance(effect, Send)]


def found(get: CacheGet, *outputs: TensorRef) -> CacheFound:
    return CacheFound(get.number, bool(outputs), outputs, {"p": 1} if outputs else {})


def block(generation: int = 3, owner: str = "c") -> TensorRef:
    return TensorRef("OUT", "FP32", (1024,), 4096, None, f"tidepool-s-{owner}-1", 0, 5, generation)


def test_a_hit_is_answered_without_an_execution() -> None:
    served = Served()
    (get,) = served.ask_for()
    assert get.reader == served.frontend
    (response,) = served.tell(served.cache, found(get, block()))
    assert response == Response(1, ErrorCode.OK, "", "m", 1, (block(),), {"p": 1})
    assert served.counted()["cache_hit"] == 1
    assert served.core.models["m"].versions[1].executing == 0
    assert len(served.core.requests) == 0


def test_a_miss_is_executed_and_stored_and_then_forgotten_by_its_worker() -> None:
    served = Served()
    (get,) = served.ask_for()
    keep, execute = served.tell(served.cache, found(get))
    assert isinstance(keep, Keep)
    assert isinstance(execute, Execute)
    (put,) = served.tell(served.worker, Kept(execute.attempt, 0, (block(7),), {"p": 1}, 5))
    assert (put.key, put.outputs, put.parameters) == (get.key, (block(7),), {"p": 1})
    end = int(served.now * 1e9)
    result = Result(ErrorCode.OK, "", (block(8),), {"p": 1})
    (response,) = served.tell(served.worker, Executed(execute.attempt, (result,), (end, end, end, end)))
    assert response.outputs == (block(8),)
    assert served.tell(served.cache, CacheStored(put.number)) == [Forget((7,))]
    assert served.tell(served.cache, CacheStored(put.number)) == []
    assert served.counted()["cache_miss"] == 1


def test_the_key_is_the_same_for_equal_files_and_no_others() -> None:
    def key(digest: bytes = b"d", **changes: Any) -> str:
        (get,) = Served(**changes).ask_for(digest)
        assert get.key.startswith("tidepool:m:1:")
        return str(get.key)

    assert key() == key()
    others = [key(b"e"), key(fingerprint="b"), key(version_fingerprints={1: "x"})]
    assert len({key(), *others}) == 4


@pytest.mark.parametrize("has_answered", [False, True], ids=["dies", "misses"])
def test_a_client_that_goes_while_the_cache_is_asked(has_answered: bool) -> None:
    served = Served()
    (get,) = served.ask_for()
    assert served.tell(served.frontend, Cancel(1)) == []
    if has_answered:
        told = served.tell(served.cache, found(get))
    else:
        told = sent(served.core.lost(served.cache, DEATH, served.now))
    (response,) = [message for message in told if isinstance(message, Response)]
    assert response.code == ErrorCode.CANCELLED
    assert len(served.core.requests) == 0


def test_a_client_that_has_gone_still_gets_a_hit_whose_blocks_it_gives_back() -> None:
    served = Served()
    (get,) = served.ask_for()
    served.tell(served.frontend, Cancel(1))
    (response,) = served.tell(served.cache, found(get, block()))
    assert response.outputs == (block(),)


@pytest.mark.parametrize("is_hit", [False, True])
def test_a_frontend_that_dies_while_the_cache_is_asked(is_hit: bool) -> None:
    served = Served()
    (get,) = served.ask_for()
    effects = served.core.lost(served.frontend, DEATH, served.now)
    assert Send(served.cache, PeerGone(served.frontend)) in effects
    assert served.tell(served.cache, found(get, *[block()] * is_hit)) == []
    assert len(served.core.requests) == 0
    assert served.core.models["m"].versions[1].executing == 0


def test_what_a_dead_cache_was_asked_for_is_executed_and_it_is_started_again() -> None:
    served = Served()
    served.ask_for()
    effects = served.core.lost(served.cache, DEATH, served.now)
    assert [type(message) for message in sent(effects)] == [Execute]
    assert [type(message) for message in served.ask_for(b"other")][:1] != [CacheGet]
    served.advance(2)
    assert {process.token for process in served.of("cache")} > {served.cache}


def test_what_was_to_be_stored_by_a_dead_cache_is_given_back() -> None:
    served = Served()
    (get,) = served.ask_for()
    _, execute = served.tell(served.cache, found(get))
    served.tell(served.worker, Kept(execute.attempt, 0, (block(7),), {}, 5))
    effects = served.core.lost(served.cache, DEATH, served.now)
    assert Send(served.worker, Forget((7,))) in effects


def test_a_dead_worker_is_told_nothing() -> None:
    served = Served()
    (get,) = served.ask_for()
    _, execute = served.tell(served.cache, found(get))
    (put,) = served.tell(served.worker, Kept(execute.attempt, 0, (block(7),), {}, 5))
    served.core.lost(served.worker, DEATH, served.now)
    assert served.tell(served.cache, CacheStored(put.number)) == []


def test_a_version_waits_for_lookups_before_it_goes() -> None:
    served = Served()
    (get,) = served.ask_for()
    served.tell(served.of("repository")[0].token, ModelRemoved("m"))
    served.advance(5)
    _, execute = served.tell(served.cache, found(get))
    assert isinstance(execute, Execute)


def test_a_queue_that_is_full_by_then_refuses() -> None:
    served = Served(batching=DynamicBatching((8,), policies={0: QueuePolicy(max_queue_size=1)}))
    gets = [served.ask_for(b"%d" % number, (1, 4))[0] for number in range(40)]
    told = [message for get in gets for message in served.tell(served.cache, found(get))]
    refused = [message for message in told if isinstance(message, Response)]
    assert refused
    assert {response.error for response in refused} == {"[request id: <id_unknown>] Exceeds maximum queue size"}


def test_lookups_keep_their_place_in_the_order() -> None:
    served = Served(batching=batching(ordered=True))
    (first,), (second,) = served.ask_for(b"1", (1, 4)), served.ask_for(b"2", (1, 4))
    assert served.tell(served.cache, found(second, block(2))) == []
    responses = served.tell(served.cache, found(first, block(1)))
    assert [response.request for response in responses] == [1, 2]


def test_the_process_hears_what_it_needs_and_frontends_map_its_memory() -> None:
    served = Served()
    served.core.lost(served.cache, DEATH, served.now)
    served.advance(2)
    served.cache = served.of("cache")[-1].token
    welcome, *regions = served.tell(served.cache, Hello(PROTOCOL, "cache", 1))
    assert isinstance(welcome, Welcome)
    assert regions == [RegionOpened(f"tidepool-s-{served.worker}-0")]
    assert (welcome.options["cache"]["host"], welcome.options["cache"]["password"]) == ("h", "p")
    name = f"tidepool-s-{served.cache}-0"
    effects = served.effects(served.cache, RegionOpened(name))
    assert effects == [Send(served.frontend, RegionOpened(name))]
    effects = served.core.lost(served.cache, DEATH, served.now)
    assert Send(served.frontend, RegionClosed(name)) in effects
    worker_region = f"tidepool-s-{served.worker}-9"
    assert Send(served.frontend, RegionOpened(worker_region)) in served.effects(
        served.worker, RegionOpened(worker_region)
    )


@pytest.mark.parametrize("message", [CacheFound(1, True, (), {}), CacheStored(1)])
def test_nobody_else_speaks_for_the_cache(message: Message) -> None:
    served = Served()
    assert Kill(served.frontend) in served.effects(served.frontend, message)


def test_there_is_no_such_process_without_such_a_cache() -> None:
    assert "cache" not in {process.role for process in World().processes.values()}


def test_calls_of_models_are_asked_about_and_hold_what_they_call() -> None:
    served = Served(count=2)
    caller, other = [process.token for process in served.workers]
    question = infer(9, digest=b"d", received=served.now, attempt=0)
    told = served.tell(caller, question)
    (get,) = [message for message in told if isinstance(message, CacheGet)]
    assert get.reader == caller
    assert [message for message in told if isinstance(message, Directory)], "later calls know what is cached"
    version = served.core.models["m"].versions[1]
    assert version.calls == 1
    (response,) = served.tell(served.cache, found(get, block()))
    assert (response.request, response.outputs) == (9, (block(),))
    assert version.calls == 0
    (get,) = [m for m in served.tell(caller, question._replace(request=10)) if isinstance(m, CacheGet)]
    execute = served.tell(served.cache, found(get))[-1]
    assert isinstance(execute, Execute)
    assert version.calls == 1
    name = f"tidepool-s-{served.cache}-0"
    assert Send(caller, RegionOpened(name)) in served.effects(served.cache, RegionOpened(name))
    assert Send(served.cache, PeerGone(caller)) in served.core.lost(caller, DEATH, served.now)
    assert other in served.core.peers
