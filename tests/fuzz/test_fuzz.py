"""A minute of bad inputs from clients, files and peers: nothing dies, nothing leaks, every answer is one of ours.

`make fuzz` does the same for longer (`python -m tests.fuzz`).
"""

from pathlib import Path

from tests.fuzz import fabric, targets
from tests.fuzz.tally import Tally
from tests.fuzz.targets import Budget
from tests.fuzz.watch import Watch
from tests.support.server import Server

BUDGET = Budget(inputs=2000, seconds=5.0, seed=1)
ENOUGH = 100
"""Different inputs that each target manages on a slow machine."""


def check(tally: Tally) -> None:
    """The target has done something, and heard different things."""
    assert tally.inputs >= ENOUGH
    assert len(tally.texts) > 1


def test_http_documents(server: Server) -> None:
    with Watch(server):
        check(targets.http_documents(server.address("http"), BUDGET))


def test_http_framing(server: Server) -> None:
    with Watch(server):
        check(targets.http_framing(server.address("http"), BUDGET))


def test_grpc_messages(server: Server) -> None:
    with Watch(server):
        check(targets.grpc_messages(server.address("grpc"), BUDGET))


def test_grpc_frames(server: Server) -> None:
    with Watch(server):
        check(targets.grpc_frames(server.address("grpc"), BUDGET))


def test_model_configurations(tmp_path: Path) -> None:
    check(targets.model_configurations(tmp_path, BUDGET))


def test_server_configurations(tmp_path: Path) -> None:
    check(targets.server_configurations(tmp_path, BUDGET))


def test_fabric_messages(tmp_path: Path) -> None:
    check(fabric.messages(tmp_path, BUDGET))


def test_fabric_sockets(server: Server) -> None:
    with Watch(server, keeps_processes=False):
        assert fabric.sockets(server, BUDGET).inputs >= ENOUGH
