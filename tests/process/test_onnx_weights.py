"""Weights of ONNX models that several workers have in common, by what the kernel says of their memory."""

import contextlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.onnx_graphs import TensorProto, helper, model, onnx, save
from tests.support.worker import FakeBroker

pytest.importorskip("onnxruntime")

N = 4096
WEIGHTS = 4 * N * N


def config(*switches: str) -> dict[str, Any]:
    return {"parameters": {key: {"string_value": "1"} for key in ("intra_op_thread_count", *switches)}}


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A model `y = x * w`, whose weights ONNX Runtime rearranges."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    weights = onnx.numpy_helper.from_array(np.tile(np.arange(N, dtype=np.float32), (N, 1)), "w")
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ("n", N)) for name in "xy"]
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", tensors[:1], tensors[1:], [weights])
    save(model(graph), tmp_path / "m" / "1")
    yield tmp_path / "m"
    shutil.rmtree(tmp_path)  # pytest would keep all of it for a while


def mapped(pid: int, file: str) -> dict[str, int]:
    """Bytes of a process in the mappings of a file, by kind; what the kernel calls Rss, Pss and so on."""
    total: dict[str, int] = {}
    is_file = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            is_file = line.endswith(file)
        elif is_file and line.endswith(" kB"):
            key, value = line.removesuffix(" kB").split(":")
            total[key] = total.get(key, 0) + int(value) * 1024
    return total


def anonymous(pid: int) -> int:
    found = re.search(r"^Anonymous: +(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) * 1024


def loaded(stack: contextlib.ExitStack, directory: Path, config: dict[str, Any], count: int) -> list[FakeBroker]:
    """So many workers, which load at the same time, and have executed."""
    brokers = [stack.enter_context(FakeBroker()) for _ in range(count)]
    for broker in brokers:
        broker.begin_load("onnxruntime", directory, config)
    for broker in brokers:
        broker.wait_for("Loaded")
        found = broker.arrays(broker.infer(broker.ref("x", np.ones((2, N), np.float32))))["y"]
        np.testing.assert_array_equal(found, np.tile(N * np.arange(N, dtype=np.float32), (2, 1)))
    return brokers


@pytest.mark.parametrize("switch", ["share_weights", "session.disable_prepacking"])
def test_the_weights_of_several_workers_are_there_once(directory: Path, switch: str) -> None:
    if switch != "share_weights":  # which needs them in a file of their own
        path = directory / "1" / "model.onnx"
        onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights.bin")
    with contextlib.ExitStack() as stack:
        for broker in loaded(stack, directory, config(switch), 2):
            found = mapped(broker.process.pid, "/weights.bin")
            assert found["Rss"] >= WEIGHTS
            assert found["Pss"] < 0.6 * found["Rss"]
            assert anonymous(broker.process.pid) < WEIGHTS


def test_else_each_worker_has_its_own(directory: Path) -> None:
    with contextlib.ExitStack() as stack:
        (broker,) = loaded(stack, directory, config(), 1)
        assert anonymous(broker.process.pid) > WEIGHTS
