"""The rate limiter over real workers: who waits, who does not, and what a dead worker leaves free."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tritonclient.utils import InferenceServerException

from tests.support.calls import Calls
from tests.support.clients import Client
from tests.support.repository import ECHO, WAIT, Commands
from tests.support.server import Server
from tests.support.waiting import until

TOO_GREEDY = (
    "load failed for model '{}': version 1 is at UNAVAILABLE state: Invalid argument: Resource count for \"R\" is "
    "limited to 2 which will prevent scheduling of one or more model instances, the minimum required count is 3;\n"
)


def takes(count: int, resource: str = "R") -> str:
    """An instance that takes so much of a resource."""
    return f'instance_group {{ kind: KIND_CPU rate_limiter {{ resources {{ name: "{resource}" count: {count} }} }} }}'


@pytest.fixture(scope="module")
def models() -> dict[str, Commands]:
    return {}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, models: dict[str, Commands]) -> Iterator[Server]:
    flags = ("--rate-limit=execution_count", "--rate-limit-resource=R:2", "--rate-limit-resource=S:1")
    control = ("--model-control-mode=explicit", *(f"--load-model={name}" for name in ("first", "second", "free")))
    server = Server(tmp_path_factory.mktemp("limits"), "", *flags, *control)
    for name, group in (("first", takes(2)), ("second", takes(1)), ("free", takes(1, "S")), ("greedy", takes(3))):
        models[name] = Commands(server.repository, name, group)
    with server:
        yield server


def test_what_is_taken_is_waited_for_and_nothing_else(server: Server, models: dict[str, Commands]) -> None:
    holder = Calls(server, models["first"]).send(WAIT, 1)
    until(lambda: models["first"].executions(WAIT, 1), 30, "the first executes")
    waiting = Calls(server, models["second"]).send(ECHO, 2)
    assert Calls(server, models["free"]).send(ECHO, 3).result(30)[0] == 3
    assert not models["second"].executions(ECHO, 2)
    models["first"].let_go(1)
    assert holder.result(30)[0] == 1
    assert waiting.result(30)[0] == 2


def test_a_worker_that_is_killed_gives_back_what_it_took(server: Server, models: dict[str, Commands]) -> None:
    holder = Calls(server, models["first"]).send(WAIT, 11)
    until(lambda: models["first"].executions(WAIT, 11), 30, "the first executes")
    waiting = Calls(server, models["second"]).send(ECHO, 12)
    os.kill(models["first"].executions(WAIT, 11)[0].pid, signal.SIGKILL)
    assert waiting.result(30)[0] == 12
    models["first"].let_go(11)
    assert holder.result(30)[0] == 11, "it runs again"


def test_a_model_that_could_never_execute_is_refused_with_tritons_words(server: Server) -> None:
    with Client("http", server) as client:
        with pytest.raises(InferenceServerException) as refused:
            client.raw.load_model("greedy")
        assert refused.value.message() == TOO_GREEDY.format("greedy")
        client.raw.load_model("second")


def test_a_served_model_that_is_edited_to_need_too_much_goes_on_as_it_is(
    server: Server, models: dict[str, Commands]
) -> None:
    config = models["second"].directory / "config.pbtxt"
    before = config.read_text()
    with Client("http", server) as client:
        config.write_text(before.replace("count: 1", "count: 3"))
        with pytest.raises(InferenceServerException) as refused:
            client.raw.load_model("second")
        assert refused.value.message() == TOO_GREEDY.format("second")
        assert Calls(server, models["second"]).send(ECHO, 5).result(30)[0] == 5
        config.write_text(before)
        client.raw.load_model("second")


def test_without_the_flag_resources_mean_nothing(tmp_path: Path) -> None:
    server = Server(tmp_path)
    first, second = (Commands(server.repository, name, takes(1)) for name in ("first", "second"))
    with server:
        holder = Calls(server, first).send(WAIT, 1)
        until(lambda: first.executions(WAIT, 1), 30, "the first executes")
        assert Calls(server, second).send(ECHO, 2).result(30)[0] == 2
        first.let_go(1)
        assert holder.result(30)[0] == 1
