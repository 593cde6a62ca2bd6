"""Classes of PyTorch with their weights beside them."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.workers.support import spec, tensor
from workers import isolation
from workers.backend import IO
from workers.errors import BackendError

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")

from workers.backends.pytorch import classes, devices, results, settings  # noqa: E402
from workers.backends.pytorch.names import Argument  # noqa: E402
from workers.backends.pytorch.program import Order, Program  # noqa: E402

SOURCE = """
import torch
from torch.nn import Linear

class Affine(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = Linear(2, 2)

    def forward(self, x, bias=None):
        y = self.linear(x)
        return y if bias is None else y + bias
"""
WEIGHTS = {"linear.weight": torch.tensor([[0.0, 1.0], [1.0, 0.0]]), "linear.bias": torch.tensor([10.0, 20.0])}
OUT = [tensor("y", "TYPE_FP32", 2)]


@pytest.fixture(autouse=True)
def no_module_stays() -> Iterator[None]:
    """What the tests import goes again."""
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.partition(".")[0] == "1":
            del sys.modules[name]


def make(directory: Path, source: str = SOURCE, config: dict[str, Any] | None = None) -> tuple[Program, list[str]]:
    """The program of a model with this source, and what it has warned about."""
    path = directory / "1" / "model.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text(source)
    model = spec(directory, {"output": OUT, **(config or {})})
    warnings: list[str] = []
    order = Order(model, path, settings.read(model), devices.plan(model, False), lambda _, text: warnings.append(text))
    return classes.of_module(order, isolation.import_file(path, "1")), warnings


def call(program: Program, **values: Any) -> Any:
    """The value of the first output."""
    positional, keyword = program.arguments({name: torch.tensor(value) for name, value in values.items()})
    with torch.inference_mode():
        return results.pick(program.function(*positional, **keyword), program.outputs)[0].tolist()


def refusal(directory: Path, source: str = SOURCE, config: dict[str, Any] | None = None) -> str:
    with pytest.raises(BackendError) as raised:
        make(directory, source, config)
    return str(raised.value)


@pytest.mark.parametrize("suffix", ["pt", "old.pt", "safetensors"])
def test_weights_beside_the_class(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "1").mkdir()
    path = tmp_path / "1" / f"model.{suffix.removeprefix('old.')}"
    if suffix == "safetensors":
        safetensors.save_file(WEIGHTS, path)
    else:
        torch.save(WEIGHTS, path, _use_new_zipfile_serialization=suffix == "pt")
    program, warnings = make(tmp_path)
    assert program.found_inputs == [IO("x", "", None), IO("bias", "", None)]
    assert call(program, x=[1.0, 2.0]) == [12.0, 21.0]
    assert call(program, bias=[1.0, 1.0], x=[1.0, 2.0]) == [13.0, 22.0]
    assert not program.function.training
    assert warnings == []


def test_weights_are_mapped(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    for path, save in (
        (tmp_path / "1" / "model.pt", torch.save),
        (tmp_path / "1" / "model.safetensors", safetensors.save_file),
    ):
        save({name: value.clone() for name, value in WEIGHTS.items()}, path)
        program, _ = make(tmp_path)
        address = program.function.linear.weight.data_ptr()
        maps = [
            line.split()[0].split("-") for line in Path("/proc/self/maps").read_text().splitlines() if path.name in line
        ]
        assert any(int(start, 16) <= address < int(end, 16) for start, end in maps)


def test_pickled_code_does_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "harm",)

    (tmp_path / "1").mkdir()
    torch.save({"linear.weight": Evil()}, tmp_path / "1" / "model.pt")
    assert "Weights only load failed" in refusal(tmp_path)
    assert not (tmp_path / "harm").exists()


def test_weights_of_another_class(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    torch.save({"linear.weight": torch.ones(2, 2)}, tmp_path / "1" / "model.pt")
    text = refusal(tmp_path)
    assert f"failed to load model 'm' from '{tmp_path}/1/model.pt': " in text
    assert 'Missing key(s) in state_dict: "linear.bias"' in text


def test_the_first_class_of_the_file_is_the_model(tmp_path: Path) -> None:
    source = SOURCE + "\nclass Zebra(Affine):\n    pass\n"
    program, warnings = make(tmp_path, source)
    assert type(program.function).__name__ == "Affine"
    assert warnings == [f"'{tmp_path}/1/model.py' has several classes: Affine, Zebra; the model is the first of them"]
    assert "cannot find a subclass of torch.nn.Module" in refusal(tmp_path, "import math\n")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (SOURCE.replace("super().__init__()", "raise ValueError('no')"), "ValueError: no"),
        (SOURCE.replace("def __init__(self)", "def __init__(self, size)"), "missing 1 required positional argument"),
    ],
)
def test_a_class_that_cannot_be_made(tmp_path: Path, source: str, message: str) -> None:
    text = refusal(tmp_path, source)
    assert text.startswith(f"failed to load model 'm' from '{tmp_path}/1/model.py': ")
    assert message in text


def test_outputs_have_to_be_declared(tmp_path: Path) -> None:
    assert "must contain at least one output, none were specified." in refusal(tmp_path, config={"output": []})


def test_arguments_of_forward() -> None:
    def forward(x, words: list[str], parts: "list[torch.Tensor]" = (), *more, scale: float = 1.0, **rest):  # type: ignore[no-untyped-def]
        return x

    found, is_open = classes.parameters(forward)
    assert found == [
        Argument("x"),
        Argument("words", "List[str]"),
        Argument("parts", "List[Tensor]", True),
        Argument("scale", "Tensor", True),
    ]
    assert is_open
    assert classes.parameters(lambda x: x) == ([Argument("x")], False)


def test_compilation(tmp_path: Path) -> None:
    options = {"parameters": {"TORCH_COMPILE_OPTIONAL_PARAMETERS": {"string_value": '{"disable": true}'}}}
    torch.manual_seed(0)
    program, _ = make(tmp_path, config=options)
    assert np.shape(call(program, x=[1.0, 2.0])) == (2,)
