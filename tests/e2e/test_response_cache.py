"""The response cache in a real server: equal requests are executed once, and get equal answers."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from tests.support.clients import PROTOCOLS, Client
from tests.support.repository import instances, write_counting
from tests.support.server import Server
from tests.support.waiting import until

CACHED = "response_cache { enable: true }\n"
SIZE = 8 << 20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(
        tmp_path_factory.mktemp("cached"), "", f"--cache-config=local,size={SIZE}", "--model-control-mode=explicit"
    )
    server.flags += [f"--load-model={name}" for name in ("cached", "pair", "plain", "caller")]
    write_counting(server.repository, "cached", CACHED + instances(1))
    write_counting(server.repository, "pair", CACHED + instances(2))
    write_counting(server.repository, "plain")
    write_counting(server.repository, "caller", source="asking")
    with server:
        yield server


@contextmanager
def connected(protocol: str, server: Server) -> Iterator[Client]:
    with Client(protocol, server) as client:
        client.raw.unload_model("cached")  # nothing is left of other tests
        client.raw.load_model("cached")
        yield client


@pytest.fixture(params=PROTOCOLS)
def client(request: pytest.FixtureRequest, server: Server) -> Iterator[Client]:
    with connected(request.param, server) as client:
        yield client


@pytest.fixture
def http(server: Server) -> Iterator[Client]:
    with connected("http", server) as client:
        yield client


def counted(client: Client, model: str = "cached") -> dict[str, int]:
    found = client.statistics(model)
    stats = {name: duration.get("count", 0) for name, duration in found["inference_stats"].items()}
    return {**stats, "executed": found.get("execution_count", 0), "inferences": found.get("inference_count", 0)}


@pytest.mark.parametrize("size", [2, 1000, 300_000], ids=["inline", "block", "large"])
def test_an_equal_request_is_not_executed_again(client: Client, size: int) -> None:
    given = np.arange(size, dtype=np.float32)
    first, second = [client.infer("cached", {"IN": given}, request_id=str(n)) for n in range(2)]
    np.testing.assert_array_equal(second["OUT"], given * 2)
    assert (first["COUNT"], second["COUNT"]) == (1, 1)
    assert counted(client) == {
        **dict.fromkeys(("success", "queue"), 2),
        **dict.fromkeys(("compute_input", "compute_infer", "compute_output", "executed", "inferences"), 1),
        **dict.fromkeys(("cache_hit", "cache_miss"), 1),
        "fail": 0,
    }


def test_what_decides_the_answer_decides_whether_it_is_the_same(client: Client) -> None:
    given = np.arange(4, dtype=np.float32)
    for options in ({}, {"parameters": {"a": 1}}, {"parameters": {"a": "1"}}, {"sequence_id": 5}):
        client.infer("cached", {"IN": given}, **options)
    client.infer("cached", {"IN": given[:2]})
    client.infer("cached", {"IN": given[::-1].copy()})
    assert counted(client)["executed"] == 6
    for options in ({}, {"parameters": {"a": "1"}}, {"priority": 3}, {"timeout": 1000}, {"request_id": "x"}):
        client.infer("cached", {"IN": given}, **options)
    assert counted(client)["executed"] == 6


def test_the_answer_has_what_was_asked_for(client: Client) -> None:
    given = np.arange(4, dtype=np.float32)
    asked = client._module.InferRequestedOutput("COUNT")
    for _ in range(2):
        assert set(client.infer("cached", {"IN": given}, outputs=[asked])) == {"COUNT"}
        assert set(client.infer("cached", {"IN": given})) == {"OUT", "COUNT"}
    assert counted(client)["executed"] == 2


def test_response_parameters_and_the_request_s_id_are_in_the_cached_answer(client: Client) -> None:
    given = np.arange(4, dtype=np.float32)
    for request_id in ("a", "b"):
        result = client.result("cached", {"IN": given}, request_id=request_id).get_response()
        if client.protocol == "http":
            assert (result["id"], result["parameters"]) == (request_id, {"count": 1})
        else:
            assert (result.id, result.parameters["count"].int64_param) == (request_id, 1)


def test_errors_are_not_cached(http: Client) -> None:
    for _ in range(2):
        with pytest.raises(InferenceServerException, match="unlucky"):
            http.infer("cached", {"IN": np.array([13], np.float32)})
    found = counted(http)
    assert (found["executed"], found["fail"], found["cache_miss"], found["cache_hit"]) == (2, 2, 2, 0)


def test_what_was_answered_before_a_reload_is_forgotten(client: Client) -> None:
    given = np.arange(4, dtype=np.float32)
    client.infer("cached", {"IN": given})
    client.raw.load_model("cached", config=json.dumps(changed(client)))
    client.infer("cached", {"IN": given})
    assert (counted(client)["cache_hit"], counted(client)["cache_miss"]) == (0, 1)


def changed(client: Client) -> dict[str, object]:
    """The model's configuration with another parameter."""
    config = client.raw.get_model_config("cached", **({"as_json": True} if client.protocol == "grpc" else {}))
    config = config.get("config", config)
    return {**config, "parameters": {"x": {"string_value": client.protocol}}}


def test_models_without_it_are_executed_each_time(http: Client) -> None:
    given = np.arange(4, dtype=np.float32)
    first, second = [http.infer("plain", {"IN": given})["COUNT"] for _ in range(2)]
    assert second == first + 1
    assert counted(http, "plain")["cache_miss"] == 0


def test_large_answers_push_out_the_oldest(http: Client, server: Server) -> None:
    evicted = server.metric("nv_cache_num_evictions") or 0
    for number in range(30):
        given = np.full(SIZE // 40, 100 + number, np.float32)
        for _ in range(2):
            np.testing.assert_array_equal(http.infer("pair", {"IN": given})["OUT"], given * 2)
    assert (server.metric("nv_cache_num_evictions") or 0) > evicted
    assert 0.5 < (server.metric("nv_cache_util") or 0) <= 1


def test_protocols_share_answers(server: Server) -> None:
    given = np.full(5000, 77, np.float32)
    with Client("http", server) as http, Client("grpc", server) as grpc:
        counts = [client.infer("cached", {"IN": given})["COUNT"].item() for client in (http, grpc, http)]
    assert len(set(counts)) == 1


def test_forgotten_answers_leave_no_memory_behind(http: Client, server: Server) -> None:
    for number in range(20):
        http.infer("cached", {"IN": np.full(SIZE // 40, 200 + number, np.float32)})
    http.infer("cached", {"IN": np.full(SIZE // 5, 300, np.float32)})

    def used() -> float:
        return server.metric("tidepool_instance_shm_used_bytes", model="cached") or 0

    until(lambda: 0 < used() <= SIZE, 10, "what was evicted is given back")


def test_answers_that_lay_in_a_dead_worker_are_computed_again(http: Client, server: Server) -> None:
    given = np.full(5000, 55, np.float32)
    http.infer("cached", {"IN": given})
    for worker in server.pids("workers"):
        os.kill(worker, signal.SIGKILL)
    np.testing.assert_array_equal(http.infer("cached", {"IN": given})["OUT"], given * 2)


def test_calls_of_models_are_answered_from_the_cache(http: Client, server: Server) -> None:
    for size in (4, 5000, 300_000):
        given = np.full(size, 400, np.float32)
        http.infer("caller", {"IN": given})  # a worker's first call of all has no digest
        answers = [http.infer("caller", {"IN": given}) for _ in range(3)]
        assert len({answer["COUNT"].item() for answer in answers}) == 1
        for answer in answers:
            np.testing.assert_array_equal(answer["OUT"], given * 2)
    http.raw.unload_model("cached")
    until(lambda: server.metric("nv_cache_num_entries") == 0, 5, "the answers are forgotten")


def test_the_metrics_page(http: Client, server: Server) -> None:
    hits, lookups = server.metric("nv_cache_num_hits") or 0, server.metric("nv_cache_num_lookups") or 0
    for _ in range(3):
        http.infer("cached", {"IN": np.arange(4, dtype=np.float32)})
    labels = {"model": "cached", "version": "1"}
    assert server.metric("nv_cache_num_hits_per_model", **labels) == 2
    assert server.metric("nv_cache_num_misses_per_model", **labels) == 1
    assert server.metric("nv_cache_num_hits_per_model", model="plain") is None
    assert server.metric("nv_cache_num_hits") == hits + 2
    assert server.metric("nv_cache_num_lookups") == lookups + 3
    assert (server.metric("nv_cache_num_entries") or 0) >= 1
