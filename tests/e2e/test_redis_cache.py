"""The response cache `redis` with a real Redis: its answers, its absence, its return."""

import itertools
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.support import redis_server
from tests.support.clients import Array, Client
from tests.support.repository import instances, write_counting
from tests.support.server import Server
from tests.support.waiting import until

pytestmark = pytest.mark.skipif(redis_server.executable() is None, reason="there is no redis-server")


class Place:
    """A server, and its Redis."""

    def __init__(self, directory: Path) -> None:
        self.redis = redis_server.RedisServer(directory)
        self.server = Server(directory / "server", "", f"--cache-config=redis,port={self.redis.port}")
        self.server.flags += ["--cache-config=redis,host=127.0.0.1", "--cache-config=redis,socket_timeout=300"]
        write_counting(self.server.repository, "cached", f"response_cache {{ enable: true }}\n{instances(1)}")
        write_counting(self.server.repository, "caller", source="asking")
        self.numbers = itertools.count(100)

    def fresh(self, size: int = 4) -> Array:
        """An input that was never seen."""
        return np.full(size, next(self.numbers), np.float32)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    place = Place(tmp_path_factory.mktemp("redis"))
    with place.redis, place.server:
        yield place


@pytest.fixture
def http(place: Place) -> Iterator[Client]:
    with Client("http", place.server) as client:
        yield client


def hits(place: Place) -> float:
    return place.server.metric("nv_cache_num_hits_per_model", model="cached") or 0


def wait_for_hits(place: Place, client: Client) -> None:
    """The cache works (again)."""
    given = place.fresh()

    def is_hit() -> bool:
        before = hits(place)
        client.infer("cached", {"IN": given})
        return hits(place) > before

    until(is_hit, 10, "the cache answers")


@pytest.mark.parametrize("size", [4, 2000, 2_000_000], ids=["inline", "block", "large"])
def test_protocols_share_answers(place: Place, http: Client, size: int) -> None:
    wait_for_hits(place, http)
    given, before = place.fresh(size), hits(place)
    with Client("grpc", place.server) as grpc:
        answers = [client.infer("cached", {"IN": given}) for client in (http, grpc, http)]
    assert len({answer["COUNT"].item() for answer in answers}) == 1
    for answer in answers:
        np.testing.assert_array_equal(answer["OUT"], given * 2)
    assert hits(place) == before + 2
    result = http.result("cached", {"IN": given}, request_id="me").get_response()
    assert (result["id"], result["parameters"]) == ("me", {"count": answers[0]["COUNT"].item()})


def test_what_is_no_answer_of_ours_is_a_miss(place: Place, http: Client) -> None:
    wait_for_hits(place, http)
    given, stored = place.fresh(), len(place.redis.client.keys("tidepool:cached:1:*"))
    http.infer("cached", {"IN": given})
    until(lambda: len(place.redis.client.keys("tidepool:cached:1:*")) > stored, 5, "it is stored")
    for key in place.redis.client.keys("tidepool:*"):
        place.redis.client.set(key, b"\x80\x04nonsense")
    before = hits(place)
    np.testing.assert_array_equal(http.infer("cached", {"IN": given})["OUT"], given * 2)
    assert hits(place) == before


def test_a_redis_that_is_down_is_a_miss_and_logged_once(place: Place, http: Client) -> None:
    wait_for_hits(place, http)
    place.redis.stop()
    for _ in range(20):
        given = place.fresh()
        np.testing.assert_array_equal(http.infer("cached", {"IN": given})["OUT"], given * 2)
    until(lambda: place.server.log().count("no responses from the cache") == 1, 5, "it is logged")
    place.redis.start()
    wait_for_hits(place, http)
    assert place.server.log().count("no responses from the cache") == 1
    assert place.server.log().count("the cache answers again") == 1


def test_a_redis_that_hangs_delays_requests_for_its_timeout_only(place: Place, http: Client) -> None:
    wait_for_hits(place, http)
    place.redis.send_signal(signal.SIGSTOP)
    try:
        for _ in range(5):
            given = place.fresh()
            np.testing.assert_array_equal(http.infer("cached", {"IN": given})["OUT"], given * 2)
    finally:
        place.redis.send_signal(signal.SIGCONT)
    wait_for_hits(place, http)


def test_calls_of_models_are_answered_from_the_cache(place: Place, http: Client) -> None:
    wait_for_hits(place, http)
    for size in (4, 5000):
        given = place.fresh(size)
        http.infer("caller", {"IN": given})  # a worker's first call of all has no digest
        answers = [http.infer("caller", {"IN": given}) for _ in range(3)]
        assert len({answer["COUNT"].item() for answer in answers}) == 1
        np.testing.assert_array_equal(answers[-1]["OUT"], given * 2)


def test_the_process_between_may_die(place: Place, http: Client) -> None:
    wait_for_hits(place, http)
    (process,) = place.server.pids("broker.redis_cache")
    os.kill(process, signal.SIGKILL)
    for _ in range(5):
        given = place.fresh(2000)
        np.testing.assert_array_equal(http.infer("cached", {"IN": given})["OUT"], given * 2)
    wait_for_hits(place, http)
