"""`python -m broker run`: a model in the foreground, without a server."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support.environments import make_environment
from tests.support.repository import instances, tensor, write_echo, write_identity, write_model

SECONDS = 60.0
INT = tensor("IN", "TYPE_INT32", "[ 1 ]")


ENSEMBLE = """
platform: "ensemble"
input { name: "A" data_type: TYPE_FP32 dims: [ 1 ] }
output { name: "B" data_type: TYPE_FP32 dims: [ 1 ] }
ensemble_scheduling { step { model_name: "identity" model_version: -1
  input_map { key: "IN" value: "A" } output_map { key: "OUT" value: "B" } } }
"""


def run(model: Path, *arguments: str, says: str = "") -> "subprocess.CompletedProcess[str]":
    """Run a model; `says` is what the user types."""
    command = [sys.executable, "-m", "broker", "run", str(model), *arguments]
    done = subprocess.run(command, input=says, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert not list(Path("/dev/shm").glob("tidepool-run*-run-*")), "shared memory is left"
    return done


def npz(path: Path, **arrays: object) -> str:
    np.savez(path, **{name: np.asarray(array) for name, array in arrays.items()})
    return str(path)


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    io = f"input {INT}\noutput {tensor('OUT', 'TYPE_INT32', '[ 1 ]')}\n"
    more = "model_transaction_policy { decoupled: true }"
    return write_model(tmp_path, "talk", f'backend: "python"\n{io}{more}\n{instances(1)}', "talk")


def test_outputs_and_times_are_printed_and_kept(tmp_path: Path) -> None:
    model = write_echo(tmp_path, "echo", "max_batch_size: 4\n" + instances(3))
    sent = np.arange(1 << 20, dtype=np.float32).reshape(1, -1)
    done = run(model, f"--input={npz(tmp_path / 'x.npz', IN=sent)}", f"--output={tmp_path / 'y.npz'}")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("load: ")
    assert lines[1].startswith("execute: ")
    assert lines[2] == "OUT: FP32 [1, 1048576]"
    assert "V import: " in done.stderr
    with np.load(tmp_path / "y.npz") as kept:
        np.testing.assert_array_equal(kept["OUT"], sent)


def test_strings_and_another_version(tmp_path: Path) -> None:
    model = write_echo(tmp_path, "echo", data_type="TYPE_STRING")
    (model / "2").mkdir()
    (model / "2" / "model.py").write_text("raise RuntimeError('the newest')")
    x = npz(tmp_path / "x.npz", IN=["früh", "spät"])
    done = run(model, f"--input={x}", "--version=1", f"--output={tmp_path / 'y.npz'}")
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "y.npz") as kept:
        assert [element.decode() for element in kept["OUT"]] == ["früh", "spät"]
    broken = run(model, f"--input={x}")
    assert broken.returncode == 1
    assert "the model cannot be loaded: Internal: RuntimeError: the newest" in broken.stderr


def test_a_stream_is_printed_as_it_comes(tmp_path: Path, talk: Path) -> None:
    done = run(
        talk, f"--input={npz(tmp_path / 'x.npz', IN=np.array([40], np.int32))}", f"--output={tmp_path / 'y.npz'}"
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines.index("number 1") < lines.index("OUT.1: INT32 [1]") < lines.index("OUT.39: INT32 [1]")
    with np.load(tmp_path / "y.npz") as kept:
        assert [int(kept[name][0]) for name in kept.files] == list(range(40))


def test_a_debugger_works(tmp_path: Path, talk: Path) -> None:
    x = npz(tmp_path / "x.npz", IN=np.array([-1], np.int32))
    done = run(talk, f"--input={x}", says="p 'count is', count\nc\n")
    assert "('count is', -1)" in done.stdout
    assert "OUT: INT32 [1]" in done.stdout


def test_there_are_no_other_models(tmp_path: Path, talk: Path) -> None:
    done = run(talk, f"--input={npz(tmp_path / 'x.npz', IN=np.array([1000], np.int32))}")
    assert done.returncode == 1
    assert "there is no server here: python -m broker run executes one model only" in done.stderr


def test_it_runs_in_the_models_environment(tmp_path: Path) -> None:
    made = make_environment(tmp_path / "env", "tidepool_fruit", 'VERSION = "4.0"')
    io = f"input {tensor('IN', dims='[ 1 ]')}\noutput {tensor('OUT', 'TYPE_STRING', '[ 1 ]')}\n"
    parameter = f'parameters {{ key: "EXECUTION_ENV_PATH" value {{ string_value: "{made}" }} }}'
    model = write_model(tmp_path / "models", "fruit", f'backend: "python"\n{io}{parameter}', "fruit")
    done = run(model, f"--input={npz(tmp_path / 'x.npz', IN=np.zeros(1, np.float32))}")
    assert done.returncode == 0, done.stderr
    assert f"4.0 {made}" in done.stdout


@pytest.mark.parametrize(
    ("arrays", "error"),
    [
        ({"INN": np.zeros(1, np.float32)}, "unexpected inference input 'INN' for model 'identity'"),
        ({"IN": np.zeros(1)}, "data-type is 'FP64', but model 'identity' expects 'FP32'"),
        ({"IN": np.zeros((1, 1), np.float32)}, "unexpected shape for input 'IN' for model 'identity'"),
        ({"IN": np.zeros(1, np.complex64)}, "has numpy's type complex64, which no datatype is for"),
        ({}, "expected 1 inputs but got 0 inputs"),
    ],
    ids=["name", "datatype", "shape", "type", "none"],
)
def test_wrong_inputs_are_told(tmp_path: Path, arrays: dict[str, object], error: str) -> None:
    model = write_identity(tmp_path, "identity")
    done = run(model, f"--input={npz(tmp_path / 'x.npz', **arrays)}")
    assert done.returncode == 1
    assert error in done.stderr
    assert "numpy" in error or "the model's inputs: IN FP32 [-1]" in done.stderr


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    model = write_identity(tmp_path, "identity")
    (tmp_path / "text.npz").write_text("no")
    ensemble = write_model(tmp_path, "ensemble", ENSEMBLE)
    for arguments, error in (
        ([str(ensemble)], "model 'ensemble' is an ensemble: run the models of its steps"),
        ([str(tmp_path / "nowhere")], f"there is no directory '{tmp_path / 'nowhere'}'"),
        ([str(model), "--version=7"], "model 'identity' has no version 7"),
        ([str(model), "--input=nothing.npz"], "there is no file 'nothing.npz'"),
        ([str(model), f"--input={tmp_path / 'text.npz'}"], "cannot be read as a .npz file without pickle"),
        ([str(model), f"--config={tmp_path / 'no.pbtxt'}"], "no.pbtxt"),
    ):
        done = run(Path(arguments[0]), *arguments[1:])
        assert done.returncode != 0
        assert error in done.stderr, done.stderr


def test_pickles_are_not_read(tmp_path: Path) -> None:
    model = write_echo(tmp_path, "echo", data_type="TYPE_STRING")

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "evil"),)

    done = run(model, f"--input={npz(tmp_path / 'x.npz', IN=np.array([Evil()], dtype=object))}")
    assert done.returncode == 1
    assert not (tmp_path / "evil").exists()
