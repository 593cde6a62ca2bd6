"""Mode on-demand with real models: memory is shared within a budget, cold models answer, unloading leaves nothing."""

import concurrent.futures
import re
import time
from collections.abc import Callable, Iterator

import numpy as np
import psutil
import pytest
from tritonclient.utils import InferenceServerException

from bench.many_models import MIB, share, write_models
from tests.support.clients import PROTOCOLS, UNAVAILABLE, Client
from tests.support.repository import SLEEP, WAIT, Commands, instances, tensor, write_echo, write_model
from tests.support.server import Server
from tests.support.waiting import until

ON_DEMAND = "--model-control-mode=on-demand"
SIZE = 40
PROCESS_MIB = 40
"""What a worker has besides its model, rounded up."""
QUESTION = {"IN": np.array([1.5, 2.5], np.float32)}


def parameter(key: str, value: str) -> str:
    """One of a configuration's parameters."""
    return f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """In mode on-demand, without a budget: 30 trivial models, one that completes its configuration, an ensemble of
    two, a model that calls one, one that cannot be loaded, one that is pinned, one that leaves after three seconds."""
    found = Server(tmp_path_factory.mktemp("many"), "", ON_DEMAND)
    for number in range(30):
        write_echo(found.repository, f"echo_{number}")
    write_echo(found.repository, "kept", parameter("pinned", "true"))
    write_echo(found.repository, "passing", parameter("idle_ttl", "3"))
    write_model(found.repository, "silent", 'backend: "python"\n', "completing")
    write_model(found.repository, "calling", f'backend: "python"\n{_io()}', "calling_echo")
    write_model(found.repository, "both", _ensemble("echo_20", "silent"))
    broken = write_echo(found.repository, "broken")
    (broken / "1" / "model.py").write_text("raise RuntimeError('out of order')\n")
    with found:
        yield found


def _io() -> str:
    return f"input [ {tensor('IN')} ]\noutput [ {tensor('OUT')} ]\n"


def _ensemble(first: str, second: str) -> str:
    def step(model: str, given: str, made: str) -> str:
        maps = f'input_map {{ key: "IN" value: "{given}" }} output_map {{ key: "OUT" value: "{made}" }}'
        return f'{{ model_name: "{model}" model_version: -1 {maps} }}'

    steps = f"{step(first, 'IN', 'between')}, {step(second, 'between', 'OUT')}"
    return f'platform: "ensemble"\n{_io()}ensemble_scheduling {{ step: [ {steps} ] }}\n'


def is_resident(server: Server, model: str) -> bool:
    """Whether the model is in memory, as the metrics page says."""
    return server.metric("tidepool_model_resident", model=model) == 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_model_is_known_before_it_is_loaded(server: Server, protocol: str) -> None:
    with Client(protocol, server) as client:
        assert client.raw.is_server_ready()
        assert client.raw.is_model_ready("echo_29")
        assert [tensor["name"] for tensor in client.metadata("echo_29")["inputs"]] == ["IN"]
    assert not is_resident(server, "echo_29")


@pytest.mark.parametrize(("protocol", "model"), [("http", "echo_0"), ("grpc", "echo_1")])
def test_the_first_request_loads_the_model(server: Server, protocol: str, model: str) -> None:
    with Client(protocol, server) as client:
        began = time.monotonic()
        assert np.array_equal(client.infer(model, QUESTION)["OUT"], QUESTION["IN"])
        print(f"first answer after {time.monotonic() - began:.2f} s")
    assert is_resident(server, model)


def test_many_cold_models_answer_at_once(server: Server) -> None:
    def first_answer(number: int) -> float:
        with Client("http", server) as client:
            began = time.monotonic()
            client.infer(f"echo_{number}", QUESTION)
            return time.monotonic() - began

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        took = list(pool.map(first_answer, range(2, 10)))
    print(f"eight first answers at once, the last after {max(took):.2f} s")


def test_a_model_that_completes_its_configuration_is_read_before_its_requests(server: Server) -> None:
    with Client("http", server) as client:
        assert client.metadata("silent")["inputs"] == []
        assert np.array_equal(client.infer("silent", QUESTION)["OUT"], QUESTION["IN"])
        assert [i["name"] for i in client.metadata("silent")["inputs"]] == ["IN"]


def test_an_ensemble_and_a_call_load_what_they_need(server: Server) -> None:
    with Client("grpc", server) as client:
        assert np.array_equal(client.infer("both", QUESTION)["OUT"], QUESTION["IN"])
        assert np.array_equal(client.infer("calling", QUESTION)["OUT"], QUESTION["IN"])
    assert is_resident(server, "echo_20")
    assert is_resident(server, "echo_21")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_model_that_cannot_be_loaded_says_why_and_harms_nobody(server: Server, protocol: str) -> None:
    with Client(protocol, server) as client:
        with pytest.raises(InferenceServerException, match=r"load failed for model 'broken'.*out of order") as error:
            client.infer("broken", QUESTION)
        assert error.value.status() == UNAVAILABLE[protocol]
        assert client.raw.is_server_ready()


def test_unloading_returns_every_byte(server: Server) -> None:
    assert is_resident(server, "kept")
    before = set(server.pids())
    with Client("http", server) as client:
        client.infer("passing", QUESTION)
        (pid,) = set(server.pids()) - before
        token = psutil.Process(pid).cmdline()[5]
        assert any(f"-{token}-" in path.name for path in server.shm_regions()), "its outputs have memory"
        until(lambda: not is_resident(server, "passing"), 30, "the model has left")
        until(lambda: not psutil.pid_exists(pid), 30, "its process has ended")
        until(lambda: set(server.pids()) <= before, 30, "no process of it is left")
        until(lambda: not any(f"-{token}-" in p.name for p in server.shm_regions()), 30, "no shared memory is left")
        until(lambda: server.metric("tidepool_model_memory_bytes", model="passing") == 0, 30, "it has no memory")
        assert server.metric("tidepool_model_unloads", model="passing", reason="idle") == 1
        assert client.infer("passing", QUESTION)
    assert is_resident(server, "kept")


def test_memory_stays_within_the_budget_and_no_request_fails(new_server: Callable[..., Server]) -> None:
    limit = 2 * (SIZE + PROCESS_MIB) * MIB
    server = new_server("", ON_DEMAND, f"--model-memory-budget={limit}")
    names = write_models(server.repository, 6, SIZE)
    with server:
        seen = share(server.address("http"), server.address("metrics"), names, 2, 5.0)
        cold = server.metric("tidepool_model_cold_requests") or 0
        print(f"{len(seen.seconds)} requests, {cold:.0f} of them cold; at most {max(seen.used) / MIB:.0f} MiB")
        assert not seen.errors
        assert seen.seconds
        assert max(seen.used) <= limit + seen.largest
        assert server.metric("tidepool_memory_budget_bytes") == limit
        until(lambda: (server.metric("tidepool_memory_used_bytes") or 0) <= limit, 10, "the budget is kept")


def test_requests_in_flight_are_never_cut_and_what_cannot_fit_is_refused(new_server: Callable[..., Server]) -> None:
    limit = 2 * SIZE * MIB
    server = new_server("", ON_DEMAND, f"--model-memory-budget={limit}")
    commands = Commands(server.repository)
    first, second = write_models(server.repository, 2, SIZE)
    write_echo(server.repository, "huge", parameter("memory_budget", str(10 * limit)))

    def execute() -> int:
        with Client("http", server) as client:
            return int(client.infer("commands", {"IN": commands.order(WAIT, 7)})["OUT"][0])

    with server, Client("grpc", server) as other:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            answer = pool.submit(execute)
            until(lambda: commands.executions(WAIT, 7), 30, "the request is executed")
            for name in (first, second):
                other.infer(name, {"IN": np.ones(4, np.float32)})
            until(
                lambda: server.metric("tidepool_model_unloads", model=first, reason="room"), 30, "an idle one has left"
            )
            assert is_resident(server, "commands")
            commands.let_go(7)
            assert answer.result() == 7
        refusal = "it takes 800.0 MiB of memory, and the budget is 80.0 MiB"
        with pytest.raises(InferenceServerException, match=re.escape(refusal)):
            other.infer("huge", QUESTION)


def test_the_count_follows_the_load(new_server: Callable[..., Server]) -> None:
    server = new_server()
    commands = Commands(server.repository, more=instances(1) + "\n" + parameter("max_count", "3"))
    with server, concurrent.futures.ThreadPoolExecutor(8) as pool:
        end = time.monotonic() + 60

        def ask(_: int) -> None:
            with Client("http", server) as client:
                while len(server.pids()) < 3 and time.monotonic() < end:
                    client.infer("commands", {"IN": commands.order(SLEEP, 100)})

        list(pool.map(ask, range(8)))
        assert len(server.pids()) == 3
        assert server.metric("tidepool_model_wanted_instances", model="commands") == 3
