"""Copies of ONNX models whose weights are shared: when they are made, and what is in them."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.onnx_graphs import TensorProto, helper, model, onnx, save
from tests.unit.workers.support import spec
from workers.errors import BackendError

pytest.importorskip("onnxruntime")

from workers.backends.onnx_session import open_session

PARAMETERS = {"share_weights": {"string_value": "true"}}


def convolution(factor: float) -> Any:
    """A model whose weights ONNX Runtime rearranges: two convolutions."""
    random = np.random.default_rng(0)
    weights = [(factor * random.random((8, 8, 3, 3))).astype(np.float32) for _ in range(2)]
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ("n", 8, 6, 6)) for name in "xy"]
    nodes = [helper.make_node("Conv", [a, w, "b"], [b], pads=[1] * 4) for a, w, b in (("x", "v", "h"), ("h", "w", "y"))]
    initial = [onnx.numpy_helper.from_array(array, name) for array, name in zip(weights, "vw", strict=True)]
    initial.append(onnx.numpy_helper.from_array(np.ones(8, np.float32), "b"))
    return model(helper.make_graph(nodes, "g", tensors[:1], tensors[1:], initial))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tidepool" / "environments"


def answer(directory: Path, **parameters: str) -> Any:
    """What the model says of ones."""
    texts = {key: {"string_value": value} for key, value in parameters.items()}
    opened = open_session(spec(directory, {"parameters": {**PARAMETERS, **texts}}), 1)
    return opened.session.run(None, {"x": np.ones((1, 8, 6, 6), np.float32)})[0]


def copies(cache: Path) -> set[str]:
    return {path.name for path in cache.glob("onnx-*") if path.is_dir()}


def test_a_copy_is_made_once_and_answers_as_the_model_does(tmp_path: Path, cache: Path) -> None:
    save(convolution(1), tmp_path / "1")
    expected = answer(tmp_path, share_weights="false")
    assert not cache.exists()
    np.testing.assert_allclose(answer(tmp_path), expected, rtol=1e-5)
    (name,) = copies(cache)
    made = os.stat(cache / name / "model.onnx")
    assert (cache / name / "weights.bin").stat().st_size > 2 * 8 * 8 * 9 * 4
    np.testing.assert_allclose(answer(tmp_path), expected, rtol=1e-5)
    assert os.stat(cache / name / "model.onnx").st_mtime_ns == made.st_mtime_ns


def test_another_model_another_copy(tmp_path: Path, cache: Path) -> None:
    save(convolution(1), tmp_path / "1")
    first = answer(tmp_path)
    path = save(convolution(2), tmp_path / "1")
    os.utime(path, ns=(1, 1))
    assert np.abs(answer(tmp_path) - first).max() > 1
    assert len(copies(cache)) == 2
    answer(tmp_path, enable_mem_arena="0")
    assert len(copies(cache)) == 3


def test_a_broken_file_leaves_no_copy(tmp_path: Path, cache: Path) -> None:
    path = save(convolution(1), tmp_path / "1")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(BackendError, match=f"failed to load '{path}': .*Protobuf parsing failed"):
        answer(tmp_path)
    assert not copies(cache)


def test_without_a_place_for_copies(tmp_path: Path, cache: Path) -> None:
    path = save(convolution(1), tmp_path / "1")
    (tmp_path / "cache").touch()
    with pytest.raises(BackendError, match=f"there is no place for the shared weights of '{path}', set XDG.*Not a dir"):
        answer(tmp_path)
