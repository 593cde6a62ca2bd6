"""The log of a running server: levels and forms that clients change, the access log, and the model's own lines."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from tests.support.clients import PROTOCOLS, Client, status_of
from tests.support.repository import instances, tensor, write_model
from tests.support.server import Server, log_lines
from tests.support.waiting import until

START: dict[str, Any] = {
    "log_file": "",
    "log_info": True,
    "log_warning": True,
    "log_error": True,
    "log_verbose_level": 0,
    "log_format": "default",
}
GLOG = r"^[IWEV]\d{4} \d\d:\d\d:\d\d\.\d{6} \d+ "
ISO8601 = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ [IWEV] \d+ "


def write_talks(server: Server) -> None:
    io = f"input [ {tensor('IN')} ]\noutput [ {tensor('OUT')} ]\n"
    write_model(server.repository, "talks", f'backend: "python"\n{io}{instances(2)}', "talks")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("logging"))
    write_talks(server)
    with server:
        yield server


@pytest.fixture(params=PROTOCOLS)
def client(request: pytest.FixtureRequest, server: Server) -> Iterator[Client]:
    with Client(request.param, server) as connected:
        yield connected
        connected.raw.update_log_settings({k: v for k, v in START.items() if k != "log_file"})


numbers = iter(range(1000, 100_000))


def talk(client: Client, server: Server) -> dict[str, str]:
    """What the model says is shown: the lines by level."""
    number = next(numbers)
    for _ in range(4):  # both instances
        client.infer("talks", {"IN": np.array([number], np.float32)})
    end = next(numbers)
    client.raw.update_log_settings({"log_warning": True})
    client.infer("talks", {"IN": np.array([end], np.float32)})
    until(lambda: f"warning {end}" in server.log(), 10, "the log is written")
    found = re.findall(rf"^(.*\b(\w+) {number})$", server.log(), re.M)
    return {level: line for line, level in found}


def settings(client: Client, changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """The settings, after changes."""
    raw = client.raw
    if client.protocol == "http":
        found: dict[str, Any] = raw.update_log_settings(changes) if changes else raw.get_log_settings()
        return found
    answer = (raw.update_log_settings(changes) if changes else raw.get_log_settings()).settings
    return {name: getattr(value, value.WhichOneof("parameter_choice")) for name, value in answer.items()}


def test_settings_are_read_and_changed(client: Client) -> None:
    assert settings(client) == START
    assert settings(client, {"log_info": False, "log_verbose_level": 2}) == {
        **START,
        "log_info": False,
        "log_verbose_level": 2,
    }
    assert settings(client) == {**START, "log_info": False, "log_verbose_level": 2}


def test_levels_count_at_once_for_running_models_too(client: Client, server: Server) -> None:
    assert set(talk(client, server)) == {"info", "warning"}
    settings(client, {"log_verbose_level": 1, "log_info": False})
    assert set(talk(client, server)) == {"verbose", "warning"}
    settings(client, {"log_verbose_level": 0, "log_info": True})
    assert set(talk(client, server)) == {"info", "warning"}


def test_forms_count_at_once(client: Client, server: Server) -> None:
    assert re.match(GLOG, talk(client, server)["info"])
    settings(client, {"log_format": "ISO8601"})
    assert re.match(ISO8601, talk(client, server)["info"])
    settings(client, {"log_format": "default"})
    assert re.match(GLOG, talk(client, server)["info"])


@pytest.mark.parametrize(
    ("change", "statuses", "error"),
    [
        (
            {"log_file": "/tmp/x"},
            {"http": "501", "grpc": "StatusCode.UNIMPLEMENTED"},
            "log file location can not be updated through network protocol",
        ),
        (
            {"log_format": "x"},
            {"http": "503", "grpc": "StatusCode.INVALID_ARGUMENT"},
            "invalid argument for {}log_format, got: x",
        ),
    ],
)
def test_what_cannot_be_changed(client: Client, change: dict[str, Any], statuses: dict[str, str], error: str) -> None:
    with pytest.raises(InferenceServerException) as refused:
        client.raw.update_log_settings(change)
    assert status_of(refused.value) == statuses[client.protocol]
    assert refused.value.message() == error.format("--" if client.protocol == "http" else "")
    assert settings(client) == START


def test_json_has_an_object_in_every_line_and_one_for_each_request(new_server: Callable[..., Server]) -> None:
    server = new_server("", "--log-format=json", "--log-access=true")
    write_talks(server)
    server.start(wait="")
    until(lambda: "ready after" in server.log(), 60, "the server is ready")
    address = {
        role: int(port)
        for role, port in re.findall(r"\| (http|grpc) +\| \S+?:(\d+)", server.log().replace("\\n", "\n"))
    }
    server.ports = lambda: address  # type: ignore[method-assign]  # the table is inside of JSON
    for protocol in PROTOCOLS:
        with Client(protocol, server) as client:
            client.infer("talks", {"IN": np.array([7], np.float32)}, request_id=f"{protocol} one\nforged")
            with pytest.raises(InferenceServerException):
                client.infer("nope", {"IN": np.array([7], np.float32)}, request_id=f"{protocol} two")
    server.stop()
    entries = [json.loads(line) for line in server.log().splitlines()]
    assert {tuple(entry) for entry in entries} == {("time", "level", "pid", "message")}
    lines = [entry["message"] for entry in entries if entry["message"].startswith("infer ")]
    assert [re.sub(r" total_us=\d+$", "", line) for line in lines] == [
        line
        for protocol in PROTOCOLS
        for line in (
            f'infer id="{protocol} one\\nforged" model="talks" version=1 batch=1 code=OK',
            f'infer id="{protocol} two" model="nope" version=-1 batch=0 code=NOT_FOUND',
        )
    ]


def test_a_log_file_has_everything(new_server: Callable[..., Server]) -> None:
    server = new_server("")
    path = server.directory / "own.log"
    server.flags.append(f"--log-file={path}")
    write_talks(server)
    server.log_file = path
    path.touch()
    server.start()
    with Client("http", server) as client:
        client.infer("talks", {"IN": np.array([8], np.float32)})
    until(lambda: list(log_lines(server, "warning 8$")), 10, "the log is written")
