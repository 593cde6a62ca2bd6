"""The log: its settings and their errors, its three forms, the access log, and readers that do not read."""

import json
import os
import re
from typing import Any

import pytest

from broker.effects import ConfigureLog, Effect, Send
from broker.log import Log
from broker.log_settings import LogSettings, access_line
from broker.messages import ErrorCode, Load, SetVerbosity, UpdateLogSettings
from broker.validation import Rejected
from configs.server import ServerConfig
from tests.unit.broker.describe import description, infer
from tests.unit.broker.world import World


def test_the_settings_of_the_start() -> None:
    assert LogSettings(ServerConfig()).values == {
        "log_file": "",
        "log_info": True,
        "log_warning": True,
        "log_error": True,
        "log_verbose_level": 0,
        "log_format": "default",
    }


def test_settings_change_and_none_is_no_change() -> None:
    settings = LogSettings(ServerConfig())
    assert settings.update({"log_info": False, "log_verbose_level": 2, "log_error": None, "other": 1})
    assert (settings.values["log_info"], settings.values["log_error"]) == (False, True)
    assert settings.levels == {"W", "E", "V"}
    assert not settings.update({"log_error": None, "other": 1})
    assert not settings.update({})


@pytest.mark.parametrize(
    ("change", "error", "code"),
    [
        (
            {"log_file": "/etc/passwd"},
            "log file location can not be updated through network protocol",
            ErrorCode.UNSUPPORTED,
        ),
        ({"log_format": "x"}, "invalid argument for log_format, got: x", ErrorCode.INVALID_ARG),
    ],
)
def test_what_is_wrong_is_said_and_nothing_changes(change: dict[str, Any], error: str, code: ErrorCode) -> None:
    settings = LogSettings(ServerConfig())
    with pytest.raises(Rejected, match=re.escape(error)) as refused:
        settings.update({"log_info": False, **change})
    assert refused.value.code == code
    assert settings.values["log_info"] is True


# ----------------------------------------------------------------------------------------------- in the core


def change(world: World, **settings: Any) -> list[Effect]:
    frontend = world.frontends[0]
    return world.core.handle(frontend.token, [UpdateLogSettings(1, settings)], world.now)


def test_a_change_is_in_force_at_once_and_reaches_running_workers() -> None:
    world = World()
    world.start(description("a", count=2))
    effects = change(world, log_info=False, log_verbose_level=1, log_format="json")
    assert ConfigureLog(frozenset("WEV"), "json") in effects
    told = {effect.peer for effect in effects if isinstance(effect, Send) and effect.message == SetVerbosity(1)}
    assert told == {worker.token for worker in world.workers}
    again = change(world, log_verbose_level=1)
    assert not [e for e in again if isinstance(e, Send) and isinstance(e.message, SetVerbosity)], "it is no change"


def test_a_worker_that_starts_later_hears_of_it_with_its_model() -> None:
    world = World()
    world.start()
    world.apply(change(world, log_verbose_level=3))
    world.describe(description("a"))
    (worker,) = world.workers
    world.greet(worker)
    (load,) = [message for message in worker.inbox if isinstance(message, Load)]
    assert load.log_verbose == 3


def test_each_request_has_one_line_in_the_access_log() -> None:
    world = World(log_access=True)
    world.start(description("a"))
    frontend = world.frontends[0]
    world.ask(frontend, infer(0, "a"))
    world.settle()
    world.ask(frontend, infer(0, "unknown"), is_valid=False)
    world.ask(frontend, infer(0, "a", shape=(4, 4)), is_valid=False)
    lines = [line for line in world.log if line.startswith("infer ")]
    assert [re.sub(r"id=\S+ ", "", line).rpartition(" ")[0] for line in lines] == [
        'infer model="a" version=1 batch=1 code=OK',
        'infer model="unknown" version=-1 batch=0 code=NOT_FOUND',
        'infer model="a" version=-1 batch=0 code=INVALID_ARG',
    ]
    assert f'id="{frontend.token}/1"' in lines[0]


def test_there_is_no_access_log_unless_asked_for() -> None:
    world = World()
    world.start(description("a"))
    world.ask(world.frontends[0], infer(0, "a"))
    world.settle()
    assert not [line for line in world.log if line.startswith("infer ")]


def test_a_client_cannot_forge_lines() -> None:
    request = infer(1, request_id='"\nE0101 all is lost\x1b[2J', received=1.0)
    line = access_line(request, 3, 2, ErrorCode.UNAVAILABLE, 1.5)
    assert line == (
        'infer id="\\"\\nE0101 all is lost\\u001b[2J" model="m" version=3 batch=2 code=UNAVAILABLE total_us=500000'
    )


# ----------------------------------------------------------------------------------------------- lines


class Pipe:
    """A pipe that a log writes to."""

    def __init__(self) -> None:
        self.read_end, self.write_end = os.pipe()
        os.set_blocking(self.read_end, False)

    def text(self) -> str:
        """What has come."""
        found = b""
        try:
            while data := os.read(self.read_end, 1 << 16):
                found += data
        except BlockingIOError:
            pass
        return found.decode()

    def close_reader(self) -> None:
        os.close(self.read_end)


def log(form: str = "default", levels: str = "IWEV") -> tuple[Log, Pipe]:
    pipe = Pipe()
    one = Log(pipe.write_end)
    one.configure(frozenset(levels), form)
    return one, pipe


@pytest.mark.parametrize(
    ("form", "pattern"),
    [
        ("default", r"W\d{4} \d\d:\d\d:\d\d\.\d{6} \d+ mind\nW\d{4} \d\d:\d\d:\d\d\.\d{6} \d+ the gap\n"),
        ("ISO8601", r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ W \d+ mind\n\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ W \d+ the gap\n"),
    ],
)
def test_every_line_of_a_text_has_its_head(form: str, pattern: str) -> None:
    one, pipe = log(form)
    one.line("W", "mind\nthe gap")
    assert re.fullmatch(pattern, pipe.text())


def test_json_has_one_object_for_each_text_whatever_it_is() -> None:
    one, pipe = log("json")
    one.line("E", 'say "no"\nand go')
    one.write("| a table |\n+---------+\n")
    one.write("[m_0_0] printed by the model\n")
    found = [json.loads(line) for line in pipe.text().splitlines()]
    assert [(entry["level"], entry["message"]) for entry in found] == [
        ("error", 'say "no"\nand go'),
        ("info", "| a table |\n+---------+"),
        ("info", "[m_0_0] printed by the model"),
    ]
    assert {entry["pid"] for entry in found} == {os.getpid()}
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", entry["time"]) for entry in found)


def test_levels_that_are_off_are_not_written_and_plain_text_is() -> None:
    one, pipe = log(levels="E")
    one.line("I", "no")
    one.line("E", "yes")
    one.write("as it stands\n")
    head, rest = pipe.text().split("\n", 1)
    assert head.endswith(" yes")
    assert rest == "as it stands\n"


def test_a_reader_that_stands_still_delays_nobody_and_hears_what_it_missed() -> None:
    one, pipe = log()
    for _ in range(4000):
        one.line("I", "x" * 1000)
    text = pipe.text()
    while True:
        one.flush()
        more = pipe.text()
        if not more:
            break
        text += more
    lines = text.splitlines()
    (dropped,) = re.findall(r"W\S+ \S+ \d+ (\d+) log lines were dropped: nobody read them", lines[-1])
    assert int(dropped) + len(lines) - 1 == 4000


def test_a_reader_that_has_gone_is_no_error() -> None:
    one, pipe = log()
    pipe.close_reader()
    one.line("I", "hello")
    one.flush()
