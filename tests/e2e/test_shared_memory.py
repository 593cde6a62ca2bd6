"""Tensors of every kind arrive unchanged; memory is taken when it is needed, given back, and refused when full."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from tests.support.clients import PROTOCOLS, UNAVAILABLE, Array, Client, status_of
from tests.support.repository import instances, write_echo, write_sizes
from tests.support.server import Server
from tests.support.waiting import until

MIB = 1 << 20


def payload(byte_size: int) -> Array:
    """FP32 of so many bytes, no two of them alike."""
    return np.random.default_rng(byte_size).random(byte_size // 4, np.float32)


def test_floats_in_json_come_back_unchanged(shared: Server) -> None:
    with Client("http", shared) as client:
        question = payload(MIB)
        answer = client.infer("identity", {"IN": question}, is_binary=False)["OUT"]
        assert np.array_equal(answer, question)


def test_8_mb_of_texts_in_json_come_back_unchanged(shared: Server) -> None:
    texts = np.array([b"x" * 1000] * 8_400, np.object_)
    with Client("http", shared) as client:
        answer = client.infer("texts", {"IN": texts}, is_binary=False)["OUT"]
        assert answer.tolist() == [text.decode() for text in texts]


def test_texts_of_all_lengths_come_back_unchanged(client: Client) -> None:
    texts = np.array([b"", b"a", "ü".encode(), bytes(range(256)), b"z" * 100_000], np.object_)
    answer = client.infer("texts", {"IN": texts})["OUT"]
    assert answer.tolist() == texts.tolist()


def test_a_default_of_4_gb_costs_nothing_on_an_idle_server(new_server: Callable[..., Server]) -> None:
    text = (
        'backend_config: [ { backend: "python" parameters: { key: "shm-default-size" value: "4294967296" # 4GB\n } } ]'
    )
    server = new_server(text)
    write_echo(server.repository, "echo", instances(2))
    with server:
        for protocol in PROTOCOLS:
            with Client(protocol, server) as client:
                question = payload(4 * MIB)
                assert np.array_equal(client.infer("echo", {"IN": question})["OUT"], question)
        regions = server.shm_regions()
        assert sum(region.stat().st_size >= 1 << 32 for region in regions) == 4  # two workers, two frontends
        until(lambda: server.shm_bytes() < 64 * MIB, 15, "an idle server holds less than 64 MB")


@pytest.fixture
def small(new_server: Callable[..., Server]) -> Server:
    """A server whose Python models have 8 MiB of shared memory in each process."""
    server = new_server("", *(f"--backend-config=python,{key}={8 * MIB}" for key in SHM_KEYS))
    write_sizes(server.repository, "sizes")
    return server


SHM_KEYS = ("shm-default-size", "shm-growth-byte-size", "shm-max-byte-size")


def sizes(a: int, b: int = 4, out: int = 4) -> dict[str, Array]:
    """Inputs for the model `sizes`, in bytes."""
    return {"A": payload(a), "B": payload(b), "COUNT": np.array([out // 4], np.int64)}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_does_not_fit_is_refused_with_the_name_of_the_setting_and_the_server_goes_on(
    small: Server, protocol: str
) -> None:
    with small:
        before = [process.pid for process in small.children()]
        with Client(protocol, small) as client:
            for too_large in (sizes(9 * MIB), sizes(4, out=9 * MIB)):
                with pytest.raises(InferenceServerException, match="shm-max-byte-size") as failure:
                    client.infer("sizes", too_large)
                assert status_of(failure.value) == UNAVAILABLE[protocol]
                fits = client.infer("sizes", sizes(4 * MIB, out=4 * MIB))
                assert fits["OUT"].size == MIB
        assert [process.pid for process in small.children()] == before
        until(lambda: small.shm_bytes() < 3 * MIB, 15, "the memory has been given back")


@pytest.mark.parametrize(("a", "b"), [(5 * MIB, 4), (3 * MIB, 2 * MIB), (MIB, 6 * MIB)])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_large_requests_wait_for_each_others_memory(small: Server, protocol: str, a: int, b: int) -> None:
    with small:

        def ask(number: int) -> None:
            with Client(protocol, small) as client:
                for _ in range(4):
                    question = sizes(a + 4 * number, b)
                    answer = client.infer("sizes", question)
                    expected = question["A"].sum(dtype=np.float64) + question["B"].sum(dtype=np.float64)
                    assert np.isclose(answer["SUM"][0], expected)

        with ThreadPoolExecutor(8) as threads:
            for done in [threads.submit(ask, number) for number in range(8)]:
                done.result(60)


def test_nothing_is_left_of_the_memory_of_killed_processes(new_server: Callable[..., Server]) -> None:
    server = new_server()
    write_echo(server.repository, "echo")
    with server:
        for protocol in PROTOCOLS:
            with Client(protocol, server) as client:
                client.infer("echo", {"IN": payload(16 * MIB)})
        before = {region.name for region in server.shm_regions()}
        victims = [*server.pids("workers"), *server.pids("frontends.http"), *server.pids("frontends.grpc")]
        for pid in victims:
            os.kill(pid, 9)
        until(lambda: not before & {r.name for r in server.shm_regions()}, 10, "the memory of the dead is gone")
        until(lambda: server.is_healthy("ready"), 30, "the server is ready again")
        with Client("http", server) as client:
            assert client.infer("echo", {"IN": payload(16 * MIB)})["OUT"] is not None
