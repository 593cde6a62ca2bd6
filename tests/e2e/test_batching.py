"""Batches form, every answer is its own request's, and work is spread over all instances."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.support.calls import Calls
from tests.support.clients import PROTOCOLS, Client
from tests.support.repository import ECHO, WAIT, Commands, instances, write_identity
from tests.support.server import Server
from tests.support.waiting import until

CLIENTS = 16
ROUNDS = 12
MINUTE = 60_000_000
"""A queue delay, in microseconds, that no test waits for."""


def batching(settings: str = "", max_batch_size: int = 8, count: int = 1) -> str:
    """The scheduling part of a configuration."""
    return f"max_batch_size: {max_batch_size}\ndynamic_batching {{ {settings} }}\n{instances(count)}"


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("lengths", [(8,), (3, 8)], ids=["equal shapes", "two shapes"])
def test_concurrent_single_requests_are_executed_together_and_each_gets_its_own_answer(
    new_server: Callable[..., Server], protocol: str, lengths: tuple[int, ...]
) -> None:
    server = new_server()
    write_identity(server.repository, "m", batching("max_queue_delay_microseconds: 20000", max_batch_size=16))

    def ask(number: int) -> int:
        wrong = 0
        with Client(protocol, server) as client:
            for turn in range(ROUNDS):
                question = np.full((1, lengths[number % len(lengths)]), number * 1000 + turn, np.float32)
                wrong += not np.array_equal(client.infer("m", {"IN": question})["OUT"], question)
        return wrong

    with server:
        with ThreadPoolExecutor(CLIENTS) as threads:
            assert list(threads.map(ask, range(CLIENTS))) == [0] * CLIENTS
        with Client(protocol, server) as client:
            found = client.statistics("m")
        sizes = {batch["batch_size"]: batch["compute_infer"]["count"] for batch in found["batch_stats"]}
        print(f"executions by batch size: {sizes}")
        assert found["inference_count"] == CLIENTS * ROUNDS
        if len(lengths) == 1:
            assert found["execution_count"] <= CLIENTS * ROUNDS / 3
        assert sum(size * count for size, count in sizes.items()) == CLIENTS * ROUNDS
        assert sum(sizes.values()) == found["execution_count"]
        assert found["inference_stats"]["success"]["count"] == CLIENTS * ROUNDS


def test_a_batch_of_a_preferred_size_does_not_wait(new_server: Callable[..., Server]) -> None:
    server = new_server()
    settings = f"preferred_batch_size: [ 4 ] max_queue_delay_microseconds: {MINUTE}"
    model = Commands(server.repository, more=batching(settings))
    with server:
        calls = Calls(server, model, batched=True)
        answers = [calls.send(ECHO, number) for number in range(8)]
        assert [answer.result(30)[0] for answer in answers] == list(range(8))
        together = Counter(model.executions(ECHO, number)[0].requests for number in range(8))
        assert together == {4: 8}


def test_a_full_batch_does_not_wait(new_server: Callable[..., Server]) -> None:
    server = new_server()
    model = Commands(server.repository, more=batching(f"max_queue_delay_microseconds: {MINUTE}"))
    with server:
        calls = Calls(server, model, batched=True)
        answers = [calls.send(ECHO, number) for number in range(8)]
        assert [answer.result(30)[0] for answer in answers] == list(range(8))
        assert model.executions(ECHO, 0)[0].requests == 8


def test_responses_keep_the_order_of_the_requests_where_the_model_wants_it(new_server: Callable[..., Server]) -> None:
    server = new_server()
    ordered = Commands(server.repository, "ordered", batching("preserve_ordering: true", 1, count=2))
    free = Commands(server.repository, "free", batching("preserve_ordering: false", 1, count=2))
    with server:
        for model in (ordered, free):
            calls = Calls(server, model, batched=True)
            first = calls.send(WAIT, 1)
            until(lambda: model.executions(WAIT, 1), 30, "the first request is being executed")  # noqa: B023
            second = calls.send(ECHO, 2)
            until(lambda: model.executions(ECHO, 2), 30, "the second is being executed")  # noqa: B023
            if model is free:
                assert second.result(30)[0] == 2
                assert not first.done()
            third = calls.send(ECHO, 3)
            until(lambda: model.executions(ECHO, 3), 30, "the third is being executed")  # noqa: B023
            assert not first.done()
            if model is ordered:
                assert not second.done()
                assert not third.done()
            model.let_go(1)
            assert [call.result(30)[0] for call in (first, second, third)] == [1, 2, 3]


@pytest.mark.parametrize("more", [instances(3), batching(count=3)], ids=["default", "dynamic"])
def test_requests_are_spread_over_all_instances(new_server: Callable[..., Server], more: str) -> None:
    server = new_server()
    model = Commands(server.repository, more=more)
    is_batched = "max_batch_size" in more
    with server:
        calls = Calls(server, model, batched=is_batched)
        answers = []
        for number in range(3):
            answers.append(calls.send(WAIT, number))
            until(lambda: model.executions(WAIT, number), 30, "the request is being executed")  # noqa: B023
        for number in range(3):
            model.let_go(number)
        pids = {answer.result(30)[1] for answer in answers}
        assert pids == set(server.pids())
        assert len(pids) == 3
