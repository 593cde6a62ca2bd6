"""Warm-up in a real server: on every instance, in the statistics; a failure says what failed."""

from collections.abc import Iterator

import pytest
from tritonclient.utils import InferenceServerException

from tests.support.clients import Client
from tests.support.repository import instances, write_echo
from tests.support.server import Server

GIVEN = 'inputs { key: "IN" value { data_type: TYPE_FP32 dims: [ 4 ] %s } }'


def sample(name: str, data: str, batch: int = 1, count: int = 1) -> str:
    return f'model_warmup {{ name: "{name}" batch_size: {batch} count: {count} {GIVEN % data} }}\n'


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    server = Server(tmp_path_factory.mktemp("warmup"), "", "--model-control-mode=explicit")
    zeros = sample("zeros", "zero_data: true", batch=3, count=2)
    file = sample("file", 'input_data_file: "numbers"')
    directory = write_echo(server.repository, "warm", f"max_batch_size: 4 {instances(2)}\n{zeros}{file}")
    (directory / "warmup").mkdir()
    (directory / "warmup" / "numbers").write_bytes(bytes(16))
    write_echo(server.repository, "cold", f"{instances(1)}\n{file}")
    with server, Client("http", server) as connected:
        yield connected


def test_every_instance_is_warmed_up_and_it_counts_as_in_triton(client: Client) -> None:
    client.raw.load_model("warm")
    found = client.statistics("warm")
    assert (found["inference_count"], found["execution_count"]) == (14, 6)
    assert found["last_inference"] > 0
    assert {name: d["count"] for name, d in found["inference_stats"].items()} == {
        **dict.fromkeys(("success", "queue", "compute_input", "compute_infer", "compute_output"), 14),
        **dict.fromkeys(("fail", "cache_hit", "cache_miss"), 0),
    }
    assert [(b["batch_size"], b["compute_infer"]["count"]) for b in found["batch_stats"]] == [(1, 2), (3, 4)]


def test_a_failure_fails_the_load_and_names_the_sample(client: Client) -> None:
    with pytest.raises(InferenceServerException, match="failed to open text file for read") as raised:
        client.raw.load_model("cold")
    assert "(warmup sample 'file')" in str(raised.value)
    assert not client.raw.is_model_ready("cold")
