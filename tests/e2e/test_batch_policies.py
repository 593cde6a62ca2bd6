"""What models' parameters say about batches and tenants, through the whole server."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest

from tests.support.calls import Calls
from tests.support.clients import PROTOCOLS, Client
from tests.support.repository import ECHO, WAIT, Commands, instances, tensor, write_model
from tests.support.server import Server
from tests.support.waiting import until

MINUTE = "max_queue_delay_microseconds: 60000000"
"""A queue delay that no test waits for."""


def parameter(key: str, value: str) -> str:
    return f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'


def write_padded(server: Server) -> None:
    """Each token doubled, and how long the model found the request to be (after padding)."""
    torch = pytest.importorskip("torch")
    module = type("Module", (torch.jit.ScriptModule,), {})()
    module.define("def forward(self, x):\n    return x * 2, torch.full([x.size(0), 1], x.size(1))\n")
    directory = write_model(
        server.repository,
        "padded",
        'platform: "pytorch_libtorch"\nmax_batch_size: 8\n'
        f"dynamic_batching {{ preferred_batch_size: [ 4 ] {MINUTE} }}\n"
        f"input {tensor('X__0', 'TYPE_INT64')}\n"
        f"output [ {tensor('Y__0', 'TYPE_INT64')}, {tensor('SIZE__1', 'TYPE_INT64', '[ 1 ]')} ]\n"
        + parameter("pad_value.X__0", "-1")
        + parameter("pad_buckets.X__0", "8, 16"),
    )
    module.save(str(directory / "1" / "model.pt"))


@pytest.fixture(scope="module")
def models() -> dict[str, Commands]:
    return {}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, models: dict[str, Commands]) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("policies"), "", "--http-header-forward-pattern=x-.*")
    write_padded(server)
    batched = f"max_batch_size: 8\n{instances(1)}\n"
    keyed = f"dynamic_batching {{ preferred_batch_size: [ 4 ] {MINUTE} }}\n"
    models["keyed"] = Commands(server.repository, "keyed", batched + keyed + parameter("batch_key", "lora"))
    shared = parameter("tenant_key", "x-tenant") + parameter("tenant_weight.gold", "2")
    models["shared"] = Commands(server.repository, "shared", instances(1) + "\n" + shared)
    with server:
        yield server


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_lengths_of_one_bucket_are_padded_to_it_and_cut_back(server: Server, protocol: str) -> None:
    def ask(length: int) -> tuple[list[int], int]:
        with Client(protocol, server) as client:
            got = client.infer("padded", {"X__0": np.arange(length)[np.newaxis]})
        return got["Y__0"][0].tolist(), int(got["SIZE__1"][0, 0])

    lengths = [1, 9, 8, 16, 3, 10, 5, 12]  # of both buckets, one after the other
    with ThreadPoolExecutor(len(lengths)) as threads:
        for length, (doubled, size) in zip(lengths, threads.map(ask, lengths), strict=True):
            assert doubled == list(range(0, 2 * length, 2))
            assert size == (8 if length <= 8 else 16)
    with Client(protocol, server) as client:
        assert [batch["batch_size"] for batch in client.statistics("padded")["batch_stats"]] == [4]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_only_requests_of_one_key_run_together(server: Server, models: dict[str, Commands], protocol: str) -> None:
    model, start = models["keyed"], 100 * PROTOCOLS.index(protocol)

    def ask(number: int) -> int:
        order = model.order(ECHO, start + number, batched=True)
        with Client(protocol, server) as client:
            answer = client.infer("keyed", {"IN": order}, parameters={"lora": "ab"[number % 2]})
        return int(answer["OUT"][0, 0]) - start

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(ask, range(8))) == list(range(8))
    assert [model.executions(ECHO, start + number)[0].requests for number in range(8)] == [4] * 8


def test_tenants_take_turns_by_their_weights(server: Server, models: dict[str, Commands]) -> None:
    model = models["shared"]

    def ask(tenant: str, number: int) -> int:
        with Client("http", server) as client:
            answer = client.infer("shared", {"IN": model.order(ECHO, number)}, headers={"X-Tenant": tenant})
        return int(answer["OUT"][0])

    def queued() -> int:
        return int(server.metric("nv_inference_pending_request_count", model="shared") or 0)

    holder = Calls(server, model).send(WAIT, 1)
    until(lambda: model.executions(WAIT, 1), 30, "the worker is busy")
    answers: list[Future[int]] = []
    with ThreadPoolExecutor(16) as threads:
        for tenant, numbers in (("plain", range(10, 16)), ("gold", range(20, 26))):
            for number in numbers:
                answers.append(threads.submit(ask, tenant, number))
                until(lambda: queued() == len(answers), 30, "the request is in the queue")
        model.let_go(1)
        assert holder.result(30)[0] == 1
        assert [answer.result(30) for answer in answers] == [*range(10, 16), *range(20, 26)]
    lines = [line.split() for line in (model.records / "executions").read_text().splitlines()]
    turns = "".join("p" if int(argument) < 20 else "g" for command, argument, *_ in lines if int(command) == ECHO)
    assert turns.startswith("gpggpgg"), turns
