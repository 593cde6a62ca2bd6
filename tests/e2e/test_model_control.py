"""Models loaded, reloaded and unloaded by clients, and models that come and go on disk."""

import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from tests.support.clients import INVALID, NOT_FOUND, PROTOCOLS, UNAVAILABLE, Client, status_of
from tests.support.repository import (
    ECHO,
    SOURCES,
    WAIT,
    Commands,
    instances,
    tensor,
    write_echo,
    write_identity,
    write_model,
)
from tests.support.server import Server
from tests.support.waiting import until

INTERNAL = {"http": "500", "grpc": "StatusCode.INTERNAL"}
UNSUPPORTED = {"http": "501", "grpc": "StatusCode.UNIMPLEMENTED"}
ONE = np.array([1.0], np.float32)
IO = f"input [ {tensor('IN')} ]\noutput [ {tensor('OUT')} ]\n"
JSON: dict[str, Any] = {
    "backend": "python",
    "input": [{"name": "IN", "data_type": "TYPE_FP32", "dims": [-1]}],
    "output": [{"name": "OUT", "data_type": "TYPE_FP32", "dims": [-1]}],
    "instance_group": [{"count": 1, "kind": "KIND_CPU"}],
}


def times(factor: int) -> bytes:
    """A model.py that multiplies."""
    return (SOURCES / "times.py").read_bytes().replace(b"FACTOR = 1", b"FACTOR = %d" % factor)


def write_times(repository: Path, name: str, factor: int) -> Path:
    directory = write_model(repository, name, f'backend: "python"\n{IO}{instances(1)}\n')
    (directory / "1" / "model.py").write_bytes(times(factor))
    return directory


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Mode explicit; `started` is loaded from the start."""
    server = Server(tmp_path_factory.mktemp("explicit"), "", "--model-control-mode=explicit", "--load-model=started")
    write_echo(server.repository, "started")
    write_echo(server.repository, "never_loaded")
    for protocol in PROTOCOLS:
        write_times(server.repository, f"times_{protocol}", 2)
        write_model(server.repository, f"broken_{protocol}", 'backend: "nothing"')
        Commands(server.repository, f"commands_{protocol}")
    with server:
        yield server


@pytest.fixture(params=PROTOCOLS)
def client(request: pytest.FixtureRequest, server: Server) -> Iterator[Client]:
    with Client(request.param, server) as connected:
        yield connected


def index(client: Client) -> dict[str, tuple[str, str]]:
    """State and reason by model, of one version each."""
    content = client.raw.get_model_repository_index(**({"as_json": True} if client.protocol == "grpc" else {}))
    rows = content.get("models", []) if client.protocol == "grpc" else content
    return {row["name"]: (row.get("state", ""), row.get("reason", "")) for row in rows}


def factor(client: Client, model: str) -> float:
    """By what the model multiplies."""
    answer = client.infer(model, {"IN": ONE})["OUT"]
    assert answer is not None
    return float(answer[0])


def refused(client: Client, call: Any, *arguments: Any, **options: Any) -> tuple[str, str]:
    with pytest.raises(InferenceServerException) as error:
        call(*arguments, **options)
    return status_of(error.value), error.value.message()


def test_the_models_of_the_start_are_loaded_and_no_others(client: Client) -> None:
    found = index(client)
    assert found["started"] == ("READY", "")
    assert found["never_loaded"] == ("", "")
    ready = client.raw.get_model_repository_index()
    assert ready
    status, message = refused(client, client.infer, "never_loaded", {"IN": ONE})
    assert status == NOT_FOUND[client.protocol]
    assert "Request for unknown model: 'never_loaded' is not found" in message


def test_load_reload_and_unload(client: Client, server: Server) -> None:
    name = f"times_{client.protocol}"
    client.raw.load_model(name)
    assert index(client)[name] == ("READY", "")
    assert factor(client, name) == 2
    file = server.repository / name / "1" / "model.py"
    file.write_bytes(times(3))
    assert factor(client, name) == 2, "a file counts from the next load on"
    client.raw.load_model(name)
    assert factor(client, name) == 3
    file.write_bytes(b"this is no Python")
    status, message = refused(client, client.raw.load_model, name)
    assert status == INVALID[client.protocol]
    assert message.startswith(f"load failed for model '{name}': version 1 is at UNAVAILABLE state: Internal: ")
    assert message.endswith(";\n")
    assert factor(client, name) == 3, "what serves goes on"
    file.write_bytes(times(2))
    client.raw.unload_model(name, unload_dependents=True)
    until(lambda: index(client)[name] == ("UNAVAILABLE", "unloaded"), 20, "it is unloaded")
    status, message = refused(client, client.infer, name, {"IN": ONE})
    assert status == NOT_FOUND[client.protocol]
    assert f"Request for unknown model: '{name}' has no available versions" in message
    assert client.raw.is_server_ready()


def test_a_load_may_bring_a_configuration_and_files(client: Client, server: Server) -> None:
    name = f"times_{client.protocol}"
    client.raw.load_model(name, config=json.dumps({**JSON, "max_batch_size": 4}))
    assert client.metadata(name)["inputs"][0]["shape"] in ([-1, -1], ["-1", "-1"])
    client.raw.load_model(name)
    assert client.metadata(name)["inputs"][0]["shape"] in ([-1], ["-1"])
    client.raw.load_model(name, config=json.dumps(JSON), files={"file:1/model.py": times(7)})
    assert factor(client, name) == 7
    bad = {"config": json.dumps(JSON), "files": {"file:1/model.py": b"raise ValueError('no')"}}
    assert refused(client, client.raw.load_model, name, **bad)[0] == INVALID[client.protocol]
    assert factor(client, name) == 7
    refused(client, client.infer, name, {"IN": -ONE})  # its worker dies, and needs the files once more
    until(lambda: _answers(client, name, 7), 20, "the worker is started again")
    client.raw.load_model(name)
    assert factor(client, name) == 2
    made_up = f"made_up_{client.protocol}"
    client.raw.load_model(made_up, config=json.dumps(JSON), files={"file:1/model.py": times(9)})
    assert factor(client, made_up) == 9
    for each in (name, made_up):
        client.raw.unload_model(each)
    until(lambda: not _brought(server), 20, "the files of load requests are gone")


def _answers(client: Client, name: str, expected: int) -> bool:
    try:
        return factor(client, name) == expected
    except InferenceServerException:
        return False


def _brought(server: Server) -> list[Path]:
    return list(Path("/tmp").glob(f"tidepool-*-{server.remember_id()}/*/*/1/model.py"))


@pytest.mark.parametrize(
    ("model", "options", "kind", "expected"),
    [
        ("nope", {}, INTERNAL, "failed to load 'nope', failed to poll from model repository"),
        ("broken", {}, INTERNAL, "failed to load 'broken_{}', failed to poll from model repository"),
        ("times", {"config": "hello"}, INTERNAL, "failed to load 'times_{}', failed to poll from model repository"),
        ("times", {"config": '{"colour": 1}'}, INTERNAL, "Invalid config override"),
        (
            "times",
            {"config": json.dumps(JSON), "files": {"file:../../x": b"x"}},
            INTERNAL,
            "Invalid file parameter 'file:../../x' with normalized path '../../x' must stay within model directory.",
        ),
    ],
)
def test_loads_that_cannot_be(
    client: Client, server: Server, model: str, options: dict[str, Any], kind: dict[str, str], expected: str
) -> None:
    name = model if model == "nope" else f"{model}_{client.protocol}"
    status, message = refused(client, client.raw.load_model, name, **options)
    assert status == kind[client.protocol]
    assert expected.format(client.protocol) in message
    assert client.raw.is_server_ready()
    assert not _brought(server)


def test_unload_lets_running_requests_finish(client: Client, server: Server) -> None:
    name = f"commands_{client.protocol}"
    client.raw.load_model(name)
    commands = Commands.__new__(Commands)
    commands.records = server.repository.parent / f"{name}.records"
    answers: list[Any] = []

    def wait() -> None:
        with Client(client.protocol, server) as other:
            answers.append(other.infer(name, {"IN": np.array([WAIT, 5], np.int64)})["OUT"])

    thread = threading.Thread(target=wait)
    thread.start()
    until(lambda: commands.executions(WAIT, 5), 20, "the request is running")
    client.raw.unload_model(name)
    assert index(client)[name][0] == "UNLOADING"
    assert refused(client, client.infer, name, {"IN": np.array([ECHO, 1], np.int64)})[0] == NOT_FOUND[client.protocol]
    commands.let_go(5)
    thread.join(20)
    assert [answer[0] for answer in answers] == [5]
    until(lambda: index(client)[name] == ("UNAVAILABLE", "unloaded"), 20, "it is unloaded")


def test_an_unknown_model_is_unloaded_without_a_word(client: Client) -> None:
    client.raw.unload_model("nope")


def test_a_new_repository_process_keeps_to_what_clients_have_loaded_and_unloaded(server: Server) -> None:
    write_identity(server.repository, "outlives")
    with Client("http", server) as client:
        client.raw.load_model("outlives")
        client.raw.unload_model("started")
        until(lambda: index(client)["started"] == ("UNAVAILABLE", "unloaded"), 20, "it is unloaded")
        (old,) = server.pids("broker.repository")
        os.kill(old, signal.SIGKILL)
        until(lambda: server.pids("broker.repository") not in ([], [old]), 20, "there is another")
        workers = len(server.pids())
        server.edit("count: 1", "count: 2", server.repository / "outlives" / "config.pbtxt")
        until(lambda: len(server.pids()) == workers + 1, 20, "the new one looks after what was loaded")
        assert index(client)["started"] == ("UNAVAILABLE", "unloaded")
        client.raw.unload_model("outlives")


def test_mode_poll_follows_the_repository_and_refuses_loads(tmp_path: Path) -> None:
    server = Server(tmp_path, "", "--model-control-mode=poll", "--repository-poll-secs=1")
    changed = write_times(server.repository, "changed", 2)
    removed = write_times(server.repository, "removed", 2)
    with server, Client("http", server) as client, Client("grpc", server) as grpc:
        for each in (client, grpc):
            status, message = refused(each, each.raw.load_model, "changed")
            assert status == UNAVAILABLE[each.protocol]
            assert message == "explicit model load / unload is not allowed if polling is enabled"
            assert refused(each, each.raw.unload_model, "changed") == (status, message)
        write_times(server.repository, "added", 5)
        (changed / "1" / "model.py").write_bytes(times(3))
        shutil.rmtree(removed)
        until(lambda: index(client).get("added") == ("READY", ""), 30, "the new model is loaded")
        until(lambda: factor(client, "changed") == 3, 30, "the changed model is loaded again")
        until(lambda: "removed" not in index(client), 30, "the removed model is gone")
        assert factor(client, "added") == 5
        (changed / "1" / "model.py").write_bytes(b"this is no Python")
        until(lambda: "the old keeps serving" in server.log(), 30, "the new file was tried")
        assert factor(client, "changed") == 3


def test_mode_none_refuses_loads(shared: Server) -> None:
    for protocol in PROTOCOLS:
        with Client(protocol, shared) as client:
            for call in (client.raw.load_model, client.raw.unload_model):
                status, message = refused(client, call, "identity")
                assert status == UNAVAILABLE[protocol]
                assert message == "explicit model load / unload is not allowed if polling is enabled"
