"""Requests of different lengths in one execution, through the whole server."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.support.clients import PROTOCOLS, Client
from tests.support.repository import tensor, write_model
from tests.support.server import Server

LENGTHS = (1, 2, 3, 5, 8, 13, 21, 34)
TOGETHER = (
    "max_batch_size: 8\ndynamic_batching { preferred_batch_size: [ 8 ] max_queue_delay_microseconds: 60000000 }\n"
)


def ragged(name: str) -> str:
    return f'input {{ name: "{name}" data_type: TYPE_FP32 dims: [ -1 ] allow_ragged_batch: true }}\n'


def write_pytorch(server: Server) -> None:
    """Each request's elements less the length of the request, which only a batch input tells."""
    torch = pytest.importorskip("torch")
    source = (
        "def forward(self, x, counts):\n"
        "    return x - torch.repeat_interleave(counts, counts.to(torch.int64)), counts.unsqueeze(1)\n"
    )
    module = type("Module", (torch.jit.ScriptModule,), {})()
    module.define(source)
    directory = write_model(
        server.repository,
        "torch",
        f'platform: "pytorch_libtorch"\n{TOGETHER}{ragged("IN__0")}'
        f"output [ {tensor('OUT__0')}, {tensor('COUNT__1', dims='[ 1 ]')} ]\n"
        'batch_input { kind: BATCH_ELEMENT_COUNT target_name: "N__1" data_type: TYPE_FP32 source_input: "IN__0" }\n'
        'batch_output { target_name: "OUT__0" kind: BATCH_SCATTER_WITH_INPUT_SHAPE source_input: "IN__0" }\n',
    )
    module.save(str(directory / "1" / "model.pt"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("ragged"))
    write_pytorch(server)
    write_model(
        server.repository,
        "python",
        f'backend: "python"\n{TOGETHER}{ragged("IN")}output [ {tensor("OUT")} ]\n',
        "echo",
    )
    with server:
        yield server


def all_at_once(ask: Callable[[int], bool]) -> None:
    with ThreadPoolExecutor(len(LENGTHS)) as threads:
        assert all(threads.map(ask, LENGTHS))


def executions(server: Server, model: str) -> list[int]:
    with Client("http", server) as client:
        return [batch["batch_size"] for batch in client.statistics(model)["batch_stats"]]


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_requests_of_any_length_are_one_batch_and_each_gets_its_own(server: Server, protocol: str) -> None:
    def ask(length: int) -> bool:
        sent = np.random.rand(1, length).astype(np.float32)
        with Client(protocol, server) as client:
            got = client.infer("torch", {"IN__0": sent})
        return np.allclose(got["OUT__0"], sent - length) and got["COUNT__1"].tolist() == [[length]]

    all_at_once(ask)
    assert executions(server, "torch") == [8]


def test_a_python_model_gets_each_request_as_it_was_sent(server: Server) -> None:
    def ask(length: int) -> bool:
        sent = np.random.rand(1, length).astype(np.float32)
        with Client("grpc", server) as client:
            return np.array_equal(client.infer("python", {"IN": sent})["OUT"], sent)

    all_at_once(ask)
    assert executions(server, "python") == [8]
