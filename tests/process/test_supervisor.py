"""Child processes: their output, their deaths, their status pages; nothing of them is left in the broker."""

import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from broker.effects import Start
from broker.requests import Death
from broker.supervisor import LAST_LINES, Child, Supervisor, describe_exit
from configs.description import Environment
from tests.support.clients import Client
from tests.support.load import echo
from tests.support.repository import instances, write_echo, write_identity
from tests.support.server import Server
from tests.support.waiting import until

SECONDS = 20.0


@pytest.fixture
def supervisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervisor]:
    """Children run `child.py` in tmp_path, whatever their role."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    modules = dict.fromkeys(("worker", "http", "repository"), "child") | {"worker with an environment": "entrance"}
    supervisor = Supervisor("/tmp/socket", "5e", {}, ["--flag"], modules)
    yield supervisor
    supervisor.end()


def start(supervisor: Supervisor, program: str, role: str = "worker", devices: str | None = "") -> Child:
    directory = Path(os.environ["PYTHONPATH"])
    (directory / "child.py").write_text(f"import os, signal, sys, time\n{program}\n")
    return supervisor.start(Start(f"{role[0]}1", role, f"{role}_0", devices))


def wait(child: Child) -> None:
    """Until its pidfd fires."""
    assert select.select([child.pidfd], [], [], SECONDS)[0], "it does not end"


def lines(supervisor: Supervisor, child: Child, count: int) -> list[str]:
    found: list[str] = []

    def read() -> bool:
        found.extend(supervisor.read(child))
        return len(found) >= count

    until(read, SECONDS, f"{count} lines")
    return found


def bury(supervisor: Supervisor, child: Child) -> tuple[Death, list[str]]:
    wait(child)
    return supervisor.bury(child.token)


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_a_child_knows_its_place_and_its_device(supervisor: Supervisor) -> None:
    child = start(supervisor, "print(sys.argv[1:], os.environ['CUDA_VISIBLE_DEVICES'])", "http", "3")
    death, said = bury(supervisor, child)
    assert said == [f"{['/tmp/socket', 'h1', '5e', str(os.getpid()), '-1']} 3"]
    assert death == Death("exited with status 0", False, 0, tuple(said))


def test_only_the_repository_process_gets_the_command_line(supervisor: Supervisor) -> None:
    _, said = bury(supervisor, start(supervisor, "print(sys.argv[6:])", "repository"))
    assert said == ["['--flag']"]


def test_a_worker_with_an_environment_is_told_which(supervisor: Supervisor, tmp_path: Path) -> None:
    (tmp_path / "entrance.py").write_text("import sys\nprint(sys.argv[6])\n")
    child = supervisor.start(Start("w1", "worker", "worker_0", "", Environment("folder", "/env", "1", "3.12")))
    _, said = bury(supervisor, child)
    assert json.loads(said[0]) == {"kind": "folder", "path": "/env", "stamp": "1", "python": "3.12"}


def test_devices_may_be_inherited(supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    _, said = bury(supervisor, start(supervisor, "print(os.environ['CUDA_VISIBLE_DEVICES'])", devices=None))
    assert said == ["7"]


def test_output_is_read_line_by_line_and_the_last_lines_are_remembered(supervisor: Supervisor) -> None:
    child = start(
        supervisor, "for i in range(9): print(i)\nsys.stderr.write('half'); sys.stderr.flush(); time.sleep(60)"
    )
    assert lines(supervisor, child, 9) == [str(i) for i in range(9)]
    supervisor.kill(child.token)
    death, said = bury(supervisor, child)
    assert said == ["half"]
    assert death.last_lines == ("5", "6", "7", "8", "half")
    assert len(death.last_lines) == LAST_LINES


def test_the_stack_of_a_native_library_does_not_displace_its_reason(supervisor: Supervisor) -> None:
    program = "print('Check failed: no shape')\nfor i in range(9): print(f'    @     0x7fe883cce56{i}  ns::Op::Run()')"
    death, said = bury(supervisor, start(supervisor, program))
    assert len(said) == 10
    assert death.last_lines == ("Check failed: no shape",)


def test_a_line_without_end_does_not_grow_for_ever(supervisor: Supervisor) -> None:
    child = start(supervisor, "sys.stdout.write('x' * (1 << 20)); sys.stdout.flush(); time.sleep(60)")
    found: list[str] = []

    def is_all_read() -> bool:
        found.extend(supervisor.read(child))
        assert len(child.partial) <= 1 << 14
        return sum(map(len, found)) + len(child.partial) == 1 << 20

    until(is_all_read, SECONDS, "everything has been read")
    assert set("".join(found)) == {"x"}


def test_the_status_page_tells_what_was_begun(supervisor: Supervisor) -> None:
    program = """
import mmap
page = mmap.mmap(int(sys.argv[5]), mmap.PAGESIZE)
page[:8] = (42).to_bytes(8, "little")
os.kill(os.getpid(), signal.SIGSEGV)
"""
    death, _ = bury(supervisor, start(supervisor, program))
    assert death.started == 42
    assert death.text == "killed by signal 11 (SIGSEGV)"
    assert not death.is_outside


def test_a_kill_from_outside_is_told_from_ours(supervisor: Supervisor) -> None:
    child = start(supervisor, "print('up'); time.sleep(60)")
    lines(supervisor, child, 1)
    os.kill(child.process.pid, signal.SIGKILL)
    assert bury(supervisor, child)[0].is_outside
    child = start(supervisor, "print('up'); time.sleep(60)")
    lines(supervisor, child, 1)
    supervisor.kill(child.token)
    death, _ = bury(supervisor, child)
    assert not death.is_outside
    assert death.text == "killed by signal 9 (SIGKILL)"
    supervisor.kill(child.token)  # which does nothing


def test_stopped_children_are_seen(supervisor: Supervisor) -> None:
    child = start(supervisor, "print('up'); time.sleep(60)")
    lines(supervisor, child, 1)
    assert supervisor.stopped() == set()
    os.kill(child.process.pid, signal.SIGSTOP)
    until(lambda: supervisor.stopped() == {child.token}, SECONDS, "it is seen stopped")
    os.kill(child.process.pid, signal.SIGCONT)
    until(lambda: supervisor.stopped() == set(), SECONDS, "it is seen running")


def test_children_leave_no_descriptors(supervisor: Supervisor) -> None:
    before = descriptors()
    for role in ("worker", "http"):
        bury(supervisor, start(supervisor, "", role))
    assert descriptors() == before


@contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """Only so many more files can be opened."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in descriptors())
    spare = [os.open("/dev/null", os.O_RDONLY) for _ in range(highest)]  # fills the gaps
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(spare) + 1 + count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in spare:
            os.close(descriptor)


@pytest.mark.parametrize("count", range(9))
def test_a_start_that_fails_leaves_nothing(supervisor: Supervisor, count: int) -> None:
    before = descriptors()
    with descriptors_left(count), pytest.raises(OSError, match="Too many open files"):
        start_all(supervisor)
    assert supervisor.children == {}
    assert descriptors() == before
    assert not subprocess.run(["pgrep", "-P", str(os.getpid()), "-f", "child"], check=False, capture_output=True).stdout


def start_all(supervisor: Supervisor) -> None:
    """Start until it fails; end what could be started."""
    try:
        for number in range(9):
            supervisor.start(Start(f"w{number}", "worker", "worker_0", ""))
    finally:
        supervisor.end()


def test_what_a_dead_child_left_running_does_not_hold_the_broker_up(supervisor: Supervisor, tmp_path: Path) -> None:
    program = """
import subprocess
flood = subprocess.Popen(["yes"])
with open(os.environ["PYTHONPATH"] + "/new", "w") as file:
    print(flood.pid, file=file)
os.rename(file.name, os.environ["PYTHONPATH"] + "/pid")
time.sleep(60)
"""
    child = start(supervisor, program)
    until((tmp_path / "pid").exists, SECONDS, "the flood has begun")
    try:
        supervisor.kill(child.token)
        wait(child)
        _, said = supervisor.bury(child.token)
        assert sum(map(len, said)) < 1 << 20
    finally:
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def test_a_child_that_closes_its_output_is_not_read_any_more(supervisor: Supervisor) -> None:
    child = start(supervisor, "print('bye')\nos.closerange(1, 3)\ntime.sleep(60)")
    assert not child.is_mute
    assert lines(supervisor, child, 1) == ["bye"]
    until(lambda: supervisor.read(child) or child.is_mute, SECONDS, "the end of its output is seen")
    supervisor.kill(child.token)
    assert bury(supervisor, child)[1] == []


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (0, "exited with status 0"),
        (3, "exited with status 3"),
        (-6, "killed by signal 6 (SIGABRT)"),
        (-99, "killed by signal 99"),
    ],
)
def test_exits_in_words(status: int, text: str) -> None:
    assert describe_exit(status) == text


def test_a_server_that_can_open_no_more_files_goes_on(new_server: Callable[..., Server]) -> None:
    server = new_server("", "--exit-on-error=false", "--strict-readiness=false")
    path = write_identity(server.repository, "scaled", instances(60))
    code = "import os, resource as r, sys; r.setrlimit(r.RLIMIT_NOFILE, (90, 90)); os.execv(sys.argv[1], sys.argv[1:])"
    server.launcher = [sys.executable, "-c", code, sys.executable, "-m", "broker"]
    with server.start("live"):
        until(lambda: "cannot be started: Too many open files" in server.log(), SECONDS, "the limit is met")
        server.edit("count: 60", "count: 1", path / "config.pbtxt")
        until(lambda: len(server.pids()) == 1, SECONDS, "one instance")
        with Client("http", server) as client:
            until(lambda: client.raw.is_model_ready("scaled"), SECONDS, "the model is ready")
            assert echo("scaled")(client, 1, 1) == ""


def test_a_model_that_closes_its_output_does_not_keep_the_broker_busy(new_server: Callable[..., Server]) -> None:
    server = new_server()
    model = write_echo(server.repository, "mute") / "1" / "model.py"
    model.write_text(f"{model.read_text()}\nimport os\nos.closerange(1, 3)\n")
    with server:
        broker = psutil.Process(server.process.pid)
        began, before = time.monotonic(), sum(broker.cpu_times()[:2])
        until(lambda: time.monotonic() > began + 1, SECONDS, "a second has passed")
        assert sum(broker.cpu_times()[:2]) - before < 0.25


def test_a_model_that_prints_without_end_waits_for_the_broker_and_not_the_other_way_round(
    new_server: Callable[..., Server],
) -> None:
    server = new_server()
    model = write_echo(server.repository, "noisy") / "1" / "model.py"
    flood = "import os, threading\ndef flood():\n    while True:\n        os.write(1, b'y\\n' * 4000)\n"
    model.write_text(f"{model.read_text()}\n{flood}threading.Thread(target=flood, daemon=True).start()\n")
    with server:
        broker = psutil.Process(server.process.pid)
        began, before = time.monotonic(), sum(broker.cpu_times()[:2])
        until(lambda: time.monotonic() > began + 2, SECONDS, "two seconds have passed")
        assert sum(broker.cpu_times()[:2]) - before < 0.5
