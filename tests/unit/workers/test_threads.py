"""Where backends learn how many threads they may use."""

import os

import pytest

from broker.child import THREADS
from workers.threads import intra_op_threads


def test_the_broker_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(THREADS, "5")
    assert intra_op_threads(3) == 5


def test_without_a_broker_the_models_instances_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(THREADS, raising=False)
    cores = len(os.sched_getaffinity(0))
    assert intra_op_threads() == cores
    assert intra_op_threads(cores) == intra_op_threads(1000) == 1
