"""Triton's own perf_analyzer, unmodified, in every way of asking that it has."""

import csv
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from bench import triton
from tests.support.repository import instances, tensor, write_echo, write_identity, write_model
from tests.support.server import Server

pytestmark = pytest.mark.timeout(900)  # the first time it is downloaded

SECONDS = 120
SHORT = ["-p", "500", "-r", "10", "-s", "999"]
"""Three windows of half a second, or some more, until one is not ten times another."""


class Tool(NamedTuple):
    """The binary and its environment."""

    path: str
    environment: dict[str, str]


@pytest.fixture(scope="module")
def perf_analyzer() -> Tool:
    """perf_analyzer, installed if need be."""
    try:
        return Tool(*triton.perf_analyzer())
    except (SystemExit, subprocess.CalledProcessError, OSError) as error:
        pytest.skip(f"perf_analyzer cannot be installed: {error}")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("perf"))
    write_identity(server.repository, "identity", instances(2))
    write_echo(server.repository, "echo")
    batched = f"max_batch_size: 8\ndynamic_batching {{ }}\n{instances(1)}"
    io = f"input [ {tensor('IN', dims='[ 16 ]')} ]\noutput [ {tensor('OUT', dims='[ 16 ]')} ]\n"
    write_model(server.repository, "batched", f'backend: "python"\n{io}{batched}', "echo")
    records = server.directory / "records"
    records.mkdir()
    parameter = f'parameters {{ key: "directory" value {{ string_value: "{records}" }} }}\n'
    io = f"input [ {tensor('ORDER', 'TYPE_INT32', '[ 3 ]')} ]\noutput [ {tensor('OUT', 'TYPE_INT32')} ]\n"
    decoupled = "model_transaction_policy { decoupled: true }\n"
    write_model(server.repository, "repeat", f'backend: "python"\n{io}{decoupled}{parameter}{instances(1)}', "repeat")
    start = 'name: "START" control [ { kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ] } ]'
    sequences = f"max_batch_size: 4\nsequence_batching {{ control_input [ {{ {start} }} ] }}\n{instances(2)}"
    write_echo(server.repository, "sequences", sequences)
    with server:
        yield server


def measure(tool: Tool, server: Server, protocol: str, model: str, *flags: str) -> dict[str, float]:
    """Run it; the first row of its table, by column."""
    table = server.directory / "table.csv"
    table.unlink(missing_ok=True)
    command = [tool.path, "-m", model, "-i", protocol, "-u", server.address(protocol), "-f", str(table), *SHORT, *flags]
    done = subprocess.run(
        command,
        check=False,
        env=tool.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{server.log(3000)}"
    with table.open() as file:
        row = next(csv.DictReader(file))
    print(protocol, model, flags, {name: value for name, value in row.items() if value})
    found = {name: float(value) for name, value in row.items() if value}
    assert found["Inferences/Second"] > 0
    return found


def check_split(row: dict[str, float]) -> None:
    """The server's part of the latency is there, and leaves something for the way to it and back."""
    assert row["Server Queue"] > 0
    assert row["Server Compute Infer"] > 0
    assert {"Server Compute Input", "Server Compute Output"} <= row.keys()
    assert row["Network+Server Send/Recv"] > 0


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize("flags", [["--sync"], ["--async", "--concurrency-range=4"]], ids=["sync", "async"])
def test_both_protocols_in_turn_and_at_once(
    perf_analyzer: Tool, server: Server, protocol: str, flags: list[str]
) -> None:
    check_split(measure(perf_analyzer, server, protocol, "identity", "--shape=IN:16", *flags))


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_batches(perf_analyzer: Tool, server: Server, protocol: str) -> None:
    row = measure(perf_analyzer, server, protocol, "batched", "-b", "4", "--concurrency-range=4", "--async")
    check_split(row)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_system_shared_memory(perf_analyzer: Tool, server: Server, protocol: str) -> None:
    size = ["--shape=IN:1000", "--output-shared-memory-size=4000"]
    check_split(measure(perf_analyzer, server, protocol, "echo", "--shared-memory=system", *size))


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_rate_of_requests(perf_analyzer: Tool, server: Server, protocol: str) -> None:
    row = measure(perf_analyzer, server, protocol, "identity", "--shape=IN:16", "--request-rate-range=40")
    check_split(row)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_input_data_of_several_steps_and_what_is_to_come_back(
    perf_analyzer: Tool, server: Server, protocol: str, tmp_path: Path
) -> None:
    steps = [{"content": [float(n), 0.5] * 8, "shape": [16]} for n in range(3)]
    outputs = [{"OUT": step} for step in steps]
    path = tmp_path / "data.json"
    path.write_text(json.dumps({"data": [{"IN": step} for step in steps], "validation_data": outputs}))
    check_split(measure(perf_analyzer, server, protocol, "batched", f"--input-data={path}"))
    outputs[1] = {"OUT": {"content": [9.0] * 16, "shape": [16]}}
    path.write_text(json.dumps({"data": [{"IN": step} for step in steps], "validation_data": outputs}))
    with pytest.raises(AssertionError, match=r"[Oo]utput"):
        measure(perf_analyzer, server, protocol, "batched", f"--input-data={path}")


@pytest.mark.parametrize(
    ("protocol", "flags"),
    [("http", ["--async"]), ("grpc", ["--async", "--streaming"])],
    ids=["http", "stream"],
)
def test_sequences(perf_analyzer: Tool, server: Server, protocol: str, flags: list[str]) -> None:
    many = ["--shape=IN:16", "--sequence-length=5", "--concurrency-range=6"]
    check_split(measure(perf_analyzer, server, protocol, "sequences", *many, *flags))


@pytest.mark.parametrize("responses", [1, 3])
def test_a_decoupled_model_over_a_stream(perf_analyzer: Tool, server: Server, tmp_path: Path, responses: int) -> None:
    path = tmp_path / "data.json"
    path.write_text(json.dumps({"data": [{"ORDER": [responses, 4, end]} for end in (0, 1)]}))
    row = measure(perf_analyzer, server, "grpc", "repeat", "--streaming", "--async", f"--input-data={path}")
    assert row.get("Response Throughput", row["Inferences/Second"]) == pytest.approx(
        responses * row["Inferences/Second"], rel=0.2
    )
    check_split(row)


def test_a_stream_of_requests_to_a_model_that_answers_once(perf_analyzer: Tool, server: Server) -> None:
    check_split(measure(perf_analyzer, server, "grpc", "identity", "--shape=IN:16", "--streaming", "--async"))
