"""Workers out of nurseries: adopted, given up, and done without, whatever dies or hangs meanwhile."""

import ctypes
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from broker.effects import Start
from broker.nurseries import MOST_DEATHS, PATIENCE_SECONDS, Nurseries
from broker.supervisor import Adopted, Child, Supervisor
from configs.description import Environment
from tests.support.waiting import until

SECONDS = 60.0
PR_SET_CHILD_SUBREAPER = 36


class Nursed:
    """Nurseries as a server has them."""

    def __init__(self) -> None:
        self.supervisor = Supervisor("/tmp/socket", "5e", {}, [])
        self.started: list[Child] = []
        self.nurseries = Nurseries(self.supervisor, self.started.append)

    def order(self, token: str, backend: str = "identity", devices: str | None = "", name: str = "worker_0") -> int:
        gate = self.nurseries.order(Start(token, "worker", name, devices, None, backend), 0.0)
        assert gate is not None
        return gate

    def adopt(self, token: str, **more: str) -> Child:
        wait_for(self.order(token, **more))
        child = self.nurseries.arrived(token)
        assert child is not None
        return child

    def bury(self, child: Child) -> tuple[bool, str]:
        """Whether it was a nursery that is dead, and how it died."""
        wait_for(child.pidfd)
        death, _ = self.supervisor.bury(child.token)
        return self.nurseries.lost(child.token, death.is_outside), death.text


@pytest.fixture
def nursed() -> Iterator[Nursed]:
    nursed = Nursed()
    yield nursed
    nursed.nurseries.close()
    nursed.supervisor.end()
    until(lambda: is_alone(nursed), SECONDS, "no process is left")
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)  # other tests' orphans are not ours


def is_alone(nursed: Nursed, *tokens: str) -> bool:
    """Whether these children run, and those that are known, and no others."""
    nursed.nurseries.reap_strangers()
    known = {child.process.pid for child in nursed.supervisor.children.values()}
    assert set(tokens) <= set(nursed.supervisor.children)
    try:
        return {p.pid for p in psutil.Process().children() if "5e" in p.cmdline()} == known
    except psutil.Error:  # one that is just ending
        return False


def wait_for(descriptor: int) -> None:
    assert select.select([descriptor], [], [], SECONDS)[0], "nothing comes"


def test_a_worker_is_our_child_as_if_we_had_started_it(nursed: Nursed) -> None:
    child = nursed.adopt("w1", name="digits_0_0")
    (nursery,) = nursed.started
    assert isinstance(child.process, Adopted)
    process = psutil.Process(child.process.pid)
    assert process.ppid() == os.getpid()
    command = [sys.executable, "-P", "-m", "workers", "/tmp/socket", "w1", "5e", str(os.getpid())]
    until(lambda: process.cmdline()[:8] == command, SECONDS, "it shows its own command line")
    assert process.cmdline()[9].rstrip("\0 ") == "digits_0_0"
    assert process.name() == "digits_0_0"
    os.kill(process.pid, signal.SIGSTOP)
    until(lambda: nursed.supervisor.stopped() == {"w1"}, SECONDS, "it is seen stopped")
    os.kill(process.pid, signal.SIGKILL)
    wait_for(child.pidfd)
    death, _ = nursed.supervisor.bury("w1")
    assert death.is_outside
    assert death.text == "killed by signal 9 (SIGKILL)"
    assert not nursed.nurseries.lost("w1", is_outside=True)
    assert nursery.process.pid in psutil.pids()


def test_one_nursery_bears_all_workers_of_a_backend_and_outlives_none_of_them(nursed: Nursed) -> None:
    children = [nursed.adopt(f"w{number}") for number in range(3)]
    (nursery,) = nursed.started
    nursed.supervisor.kill(nursery.token)
    assert nursed.bury(nursery)[0]
    assert not select.select([child.pidfd for child in children], [], [], 0.2)[0]
    nursed.adopt("w3")
    assert len(nursed.started) == 2


def test_a_nursery_that_dies_with_an_order_is_done_without(nursed: Nursed) -> None:
    nursed.adopt("w0")
    (nursery,) = nursed.started
    os.kill(nursery.process.pid, signal.SIGSTOP)
    gate = nursed.order("w1")
    os.kill(nursery.process.pid, signal.SIGKILL)
    wait_for(gate)
    assert nursed.nurseries.arrived("w1") is None
    assert nursed.nurseries.is_expected("w1")
    assert nursed.nurseries.give_up("w1").peer == "w1"
    assert not nursed.nurseries.is_expected("w1")


def test_a_worker_that_is_given_up_at_the_gate_ends(nursed: Nursed) -> None:
    wait_for(nursed.order("w1"))
    nursed.nurseries.give_up("w1")
    until(lambda: is_alone(nursed), SECONDS, "nothing is left of it")


def test_a_worker_that_comes_when_it_was_given_up_finds_the_gate_closed(nursed: Nursed) -> None:
    nursed.adopt("w0")
    (nursery,) = nursed.started
    os.kill(nursery.process.pid, signal.SIGSTOP)
    nursed.order("w1")
    nursed.nurseries.give_up("w1")
    os.kill(nursery.process.pid, signal.SIGCONT)
    nursed.adopt("w2")
    until(lambda: is_alone(nursed, "w0", "w2"), SECONDS, "nothing is left of it")


def test_a_nursery_that_hangs_is_killed_and_its_orders_given_back(nursed: Nursed) -> None:
    nursed.adopt("w0")
    (nursery,) = nursed.started
    os.kill(nursery.process.pid, signal.SIGSTOP)
    nursed.order("w1")
    assert nursed.nurseries.overdue(PATIENCE_SECONDS - 1) == []
    assert nursed.nurseries.overdue(PATIENCE_SECONDS) == ["w1"]
    nursed.nurseries.give_up("w1")
    assert nursed.bury(nursery) == (True, "killed by signal 9 (SIGKILL)")


def test_a_nursery_that_is_slow_is_not_waited_for_until_it_is_ready(nursed: Nursed) -> None:
    nursed.order("w1")
    (nursery,) = nursed.started
    os.kill(nursery.process.pid, signal.SIGSTOP)  # long before it has imported anything
    assert nursed.nurseries.overdue(PATIENCE_SECONDS) == ["w1"]
    nursed.nurseries.give_up("w1")
    order = Start("w2", "worker", "worker_0", "", None, "identity")
    assert nursed.nurseries.order(order, 0.0) is None
    os.kill(nursery.process.pid, signal.SIGCONT)
    gate = until(lambda: nursed.nurseries.order(order, 0.0), SECONDS, "it takes orders again")
    wait_for(gate)
    assert nursed.nurseries.arrived("w2") is not None
    assert nursed.started == [nursery]


def test_a_backend_without_a_nursery_is_tried_once(nursed: Nursed) -> None:
    gate = nursed.order("w1", backend="none such")
    wait_for(gate)
    assert nursed.nurseries.arrived("w1") is None
    nursed.nurseries.give_up("w1")
    (nursery,) = nursed.started
    assert nursed.bury(nursery) == (True, "exited with status 3")
    assert nursed.nurseries.order(Start("w2", "worker", "", "", None, "none such"), 0.0) is None
    nursed.adopt("w3")  # of another backend


def test_a_backend_whose_nurseries_die_again_and_again_has_none_any_more(nursed: Nursed) -> None:
    for number in range(MOST_DEATHS):
        nursed.adopt(f"w{number}")
        os.kill(nursed.started[-1].process.pid, signal.SIGKILL)
        nursed.bury(nursed.started[-1])
    assert nursed.nurseries.order(Start("w9", "worker", "", "", None, "identity"), 0.0) is None


def test_a_nursery_for_another_environment_takes_the_place_of_the_first(
    nursed: Nursed, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = nursed.adopt("w1", devices="0")
    nursed.adopt("w2", devices="1")  # which is set in the worker
    assert len(nursed.started) == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    nursed.adopt("w3")
    assert len(nursed.started) == 2
    assert nursed.bury(nursed.started[0]) == (True, "exited with status 0")
    assert psutil.Process(first.process.pid).is_running()


def test_others_are_not_forked(nursed: Nursed) -> None:
    order = nursed.nurseries.order
    assert order(Start("h1", "http", "http_0", ""), 0.0) is None
    assert order(Start("w1", "worker", "", "", Environment("folder", "/env", "1"), "python"), 0.0) is None
    assert nursed.started == []


def test_orders_leave_no_descriptors(nursed: Nursed) -> None:
    nursed.adopt("w0")
    before = set(os.listdir("/proc/self/fd"))
    child = nursed.adopt("w1")
    child.process.kill()
    nursed.bury(child)
    nursed.order("w2")
    nursed.nurseries.give_up("w2")
    assert set(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("", ""),
        ("import numpy as np\nnp.ones((300, 300)) @ np.ones((300, 300))", ""),  # OpenBLAS ends its threads
        ("import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()", "threads"),
    ],
)
def test_a_process_with_threads_forks_no_workers(program: str, reason: str, tmp_path: Path) -> None:
    script = f"{program}\nfrom workers.nursery import unfit\nprint(unfit())"
    said = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=True).stdout
    assert (reason in said) if reason else said == "\n"
