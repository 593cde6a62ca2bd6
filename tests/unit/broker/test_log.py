"""The log waits for nobody, whatever it writes to, and counts what it drops."""

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.log import Log

LIMIT = 1 << 20
PIPE = 1 << 16


class Pipe:
    """A log into a pipe, and its reading end."""

    def __init__(self) -> None:
        self.read_end, self.write_end = os.pipe()
        os.set_blocking(self.read_end, False)
        self.log = Log(self.write_end)
        self.log.configure(frozenset("IWEV"), "default")

    def read(self) -> str:
        """All that is there, and what follows as soon as there is room."""
        data = b""
        while True:
            self.log.flush()
            try:
                data += os.read(self.read_end, 1 << 20)
            except BlockingIOError:
                return data.decode()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    made.log.close()
    os.close(made.read_end)
    os.close(made.write_end)


def test_what_children_print_stands_line_by_line(pipe: Pipe) -> None:
    pipe.log.printed("digits_0_0", ["one", "two"])
    pipe.log.printed("digits_0_0", [])
    pipe.log.printed("digits_0_0", ["\udcff"])
    assert pipe.read() == "[digits_0_0] one\n[digits_0_0] two\n[digits_0_0] ?\n"


def test_in_json_what_children_print_is_an_object_for_each_line(pipe: Pipe) -> None:
    pipe.log.configure(frozenset("IWEV"), "json")
    pipe.log.printed("digits_0_0", ["one", "two"])
    pipe.log.printed("digits_0_0", [])
    found = [json.loads(line) for line in pipe.read().splitlines()]
    assert [each["message"] for each in found] == ["[digits_0_0] one", "[digits_0_0] two"]


def test_a_full_pipe_is_not_waited_for_and_what_is_dropped_is_counted(pipe: Pipe) -> None:
    line = "x" * 1023 + "\n"
    kept = (PIPE + LIMIT) // 1024
    for _ in range(kept + 7):
        pipe.log.write(line)
    pipe.log.printed("a", ["y" * 1500] * 5)
    lines = pipe.read().splitlines()
    assert lines[:kept] == [line.strip()] * kept, "what was kept is whole and in order"
    assert len(lines) == kept + 1
    assert lines[-1].endswith("12 log lines were dropped: nobody read them")
    pipe.log.write("after\n")
    assert pipe.read() == "after\n"


def test_the_pipe_itself_stays_as_it_is_for_others(pipe: Pipe) -> None:
    assert os.get_blocking(pipe.write_end)


def test_a_socket_is_not_waited_for_either() -> None:
    """What a service manager gives as standard output."""
    ours, theirs = socket.socketpair()
    log = Log(ours.fileno())
    for _ in range(3000):
        log.write("x" * 1023 + "\n")
    assert ours.getblocking(), "others share it"
    theirs.setblocking(False)
    received = 0
    while received < LIMIT:
        received += len(theirs.recv(1 << 20))
        log.flush()
    log.close()
    ours.close()
    theirs.close()


def test_a_file_is_written(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file:
        log = Log(file.fileno())
        log.write("text\n")
        log.close()
        file.write(b"more\n")
    assert (tmp_path / "log").read_text() == "text\nmore\n"
