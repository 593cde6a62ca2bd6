"""What a worker reads from the Load message."""

import os
import sys
from pathlib import Path

import pytest

from broker.messages import ErrorCode
from tests.unit.workers.support import host, spec, tensor
from workers.backend import create
from workers.errors import BackendError


def test_inputs_as_the_model_sees_them() -> None:
    model = spec(
        Path("/m"),
        {
            "max_batch_size": "4",
            "input": [tensor("a", "TYPE_STRING", 1, reshape={"shape": []}), tensor("b", "TYPE_FP32", "3", -1)],
        },
    )
    assert model.max_batch_size == 4
    first, second = model.inputs
    assert (first.datatype, first.data_type, first.dims) == ("BYTES", "TYPE_STRING", ())
    assert (second.datatype, second.data_type, second.dims) == ("FP32", "TYPE_FP32", (3, -1))


@pytest.mark.parametrize("name", ["../../x", "/x", "../..", "../../m/1/x", "a/../../../x"])
def test_files_outside_the_model_directory(tmp_path: Path, name: str) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(BackendError, match="leaves the model directory") as raised:
        spec(tmp_path / "m", {"default_model_filename": name}).file("x")
    assert raised.value.code == ErrorCode.INVALID_ARG


def test_files(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    for name in ("1/model.x", "1/other", "shared"):
        (tmp_path / name).write_text("")
    assert spec(tmp_path, {}).file("model.x") == tmp_path / "1" / "model.x"
    assert spec(tmp_path, {"default_model_filename": "other"}).file("model.x") == tmp_path / "1" / "other"
    assert spec(tmp_path, {"default_model_filename": "../shared"}).file("model.x") == tmp_path / "shared"
    with pytest.raises(BackendError, match=f"unable to find '{tmp_path}/1/none' for model instance 'm_0_0'"):
        spec(tmp_path, {"default_model_filename": "none"}).file("model.x")


def test_threads_are_shared_among_instances() -> None:
    cores = len(os.sched_getaffinity(0))
    assert spec(Path("/m"), {}).threads == cores
    assert spec(Path("/m"), {"instance_group": [{"count": cores}]}).threads == 1
    assert spec(Path("/m"), {"instance_group": [{"count": 99}, {"count": 1, "gpus": [0, 1]}]}).threads == 1


def test_parameters() -> None:
    texts = {"on": "ON", "off": "0", "number": "1.5", "integer": "-3", "word": "x"}
    model = spec(Path("/m"), {"parameters": {key: {"string_value": text} for key, text in texts.items()}})
    assert (model.flag("on", False), model.flag("off", True), model.flag("none", True)) == (True, False, True)
    assert (model.number("number"), model.number("none")) == (1.5, 0.0)
    assert (model.integer("integer"), model.integer("none")) == (-3, 0)
    with pytest.raises(BackendError, match="failed to convert 'x' to boolean"):
        model.flag("word", False)
    with pytest.raises(BackendError, match="failed to convert 'x' to number"):
        model.number("word")
    with pytest.raises(BackendError, match=r"failed to convert '1\.5' to integer"):
        model.integer("number")


@pytest.mark.parametrize(
    ("backend", "framework", "extra"),
    [
        ("pytorch", "torch", "torch"),
        ("onnxruntime", "onnxruntime", "onnx"),
        ("openvino",) * 3,
        ("tensorflow",) * 3,
    ],
)
def test_a_missing_framework(monkeypatch: pytest.MonkeyPatch, backend: str, framework: str, extra: str) -> None:
    for name in [name for name in sys.modules if name.startswith("workers.backends.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, framework, None)
    with pytest.raises(BackendError) as raised:
        create(spec(Path("/m"), {}, backend), host())
    assert raised.value.code == ErrorCode.UNAVAILABLE
    assert str(raised.value) == (
        f"backend '{backend}' needs the package '{framework}', which is not installed: pip install 'tidepool[{extra}]'"
    )
