"""A worker with a TensorRT engine, built here; needs a GPU, tensorrt and cupy."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from broker.messages import ErrorCode, LoadFailed
from tests.support.worker import FakeBroker, item

pytestmark = pytest.mark.gpu

GRAPHS = {"optimization": {"cuda": {"graphs": True}}}


def build(directory: Path, shape: tuple[int, ...], *ranges: tuple[tuple[int, ...], ...]) -> Path:
    """An engine that doubles X into Y, with an optimisation profile for each of the ranges."""
    trt = pytest.importorskip("tensorrt")
    pytest.importorskip("cupy")
    builder = trt.Builder(trt.Logger())
    network, config = builder.create_network(0), builder.create_builder_config()
    x = network.add_input("X", trt.float32, shape)
    y = network.add_elementwise(x, x, trt.ElementWiseOperation.SUM).get_output(0)
    y.name = "Y"
    network.mark_output(y)
    for least, best, most in ranges:
        profile = builder.create_optimization_profile()
        profile.set_shape("X", least, best, most)
        config.add_optimization_profile(profile)
    (directory / "1").mkdir()
    (directory / "1" / "model.plan").write_bytes(bytes(builder.build_serialized_network(network, config)))
    return directory


BATCHES = ((1, 4), (4, 4), (8, 4))


@pytest.mark.parametrize("config", [{}, GRAPHS], ids=["plain", "cuda graphs"])
def test_batches(tmp_path: Path, config: dict[str, Any]) -> None:
    with FakeBroker() as broker:
        loaded = broker.loaded("tensorrt", build(tmp_path, (-1, 4), BATCHES), config, kind="KIND_GPU")
        assert loaded.config["max_batch_size"] == 8
        for turn in range(4):  # the second execution records the graph
            arrays = [np.full((size, 4), 10 * turn + size, np.float32) for size in (1, 3)]
            results = broker.execute(*[item(broker.ref("X", array)) for array in arrays])
            for array, result in zip(arrays, results, strict=True):
                assert result.code == ErrorCode.OK, result.error
                np.testing.assert_array_equal(broker.arrays(result)["Y"], 2 * array)
        assert broker.stop() == 0


def test_profiles(tmp_path: Path) -> None:
    path = build(tmp_path, (-1, -1), ((1, 1), (1, 4), (1, 8)), ((1, 1), (8, 16), (8, 32)))
    groups = [{"name": "model_0", "profile": ["0", "1"]}]
    with FakeBroker() as broker:
        broker.loaded("tensorrt", path, {"instance_group": groups}, kind="KIND_GPU")
        for shape in ((1, 4), (8, 32), (2, 2)):
            array = np.random.default_rng(0).random(shape, dtype=np.float32)
            np.testing.assert_array_equal(broker.arrays(broker.infer(broker.ref("X", array)))["Y"], 2 * array)
        failed = broker.infer(broker.ref("X", np.zeros((8, 33), np.float32)))
        assert failed.code == ErrorCode.INVALID_ARG
        assert "no optimization profile takes the request" in failed.error


def test_without_batches(tmp_path: Path) -> None:
    with FakeBroker() as broker:
        loaded = broker.loaded("tensorrt", build(tmp_path, (2, 4)), {}, kind="KIND_GPU")
        assert "max_batch_size" not in loaded.config
        arrays = [np.full((2, 4), value, np.float32) for value in (1, 2)]
        results = broker.execute(*[item(broker.ref("X", array)) for array in arrays])
        for array, result in zip(arrays, results, strict=True):
            np.testing.assert_array_equal(broker.arrays(result)["Y"], 2 * array)


def test_a_broken_plan(tmp_path: Path) -> None:
    path = build(tmp_path, (2, 4)) / "1" / "model.plan"
    path.write_bytes(path.read_bytes()[:100])
    with FakeBroker() as broker:
        failed = broker.load("tensorrt", tmp_path, {}, kind="KIND_GPU")
        assert isinstance(failed, LoadFailed)
        assert f"failed to load '{path}'" in failed.error


def test_only_on_a_gpu(tmp_path: Path) -> None:
    with FakeBroker() as broker:
        failed = broker.load("tensorrt", build(tmp_path, (2, 4)), {}, kind="KIND_CPU")
        assert isinstance(failed, LoadFailed)
        assert "TensorRT backend supports only GPU device" in failed.error
