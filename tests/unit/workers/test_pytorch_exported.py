"""Exported programs of PyTorch 2."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from broker.messages import ErrorCode
from tests.unit.workers.support import arrays, host, request, run, spec, tensor
from workers.backend import IO, Interface
from workers.errors import BackendError

torch = pytest.importorskip("torch")

from workers.backends.pytorch.backend import PyTorchBackend  # noqa: E402


class Sum(torch.nn.Module):
    """Nested arguments, one of them a constant, and nested results."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 3)

    def forward(self, x: Any, more: Any, factor: int, *, last: Any) -> Any:
        return {"y": self.linear(x) + more["a"], "z": (x, more["a"] * factor - last)}


class Double(torch.nn.Module):
    def forward(self, x: Any) -> Any:
        return {"twice": x * 2, "half": x / 2}


@pytest.fixture(scope="module")
def sums(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The directory of the model, whose batches are of at most 16, and the module."""
    module, batch = Sum().eval(), {0: torch.export.Dim("batch", min=1, max=16)}
    exported = torch.export.export(
        module,
        (torch.ones(2, 4), {"a": torch.ones(2, 3)}, 5),
        {"last": torch.ones(2, 3)},
        dynamic_shapes={"x": batch, "more": {"a": batch}, "factor": None, "last": batch},
    )
    return _save(exported, tmp_path_factory.mktemp("sums")), module


@pytest.fixture(scope="module")
def doubles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of a fixed shape that returns a dictionary."""
    return _save(torch.export.export(Double(), (torch.ones(2, 3),)), tmp_path_factory.mktemp("doubles"))


def _save(exported: Any, directory: Path) -> Path:
    (directory / "1").mkdir()
    torch.export.save(exported, directory / "1" / "model.pt2")
    return directory


def load(directory: Path, config: dict[str, Any]) -> tuple[PyTorchBackend, Interface]:
    backend = PyTorchBackend(spec(directory, {"default_model_filename": "model.pt2", **config}), host())
    return backend, backend.load()


def refusal(directory: Path, config: dict[str, Any]) -> str:
    with pytest.raises(BackendError) as raised:
        load(directory, config)
    return str(raised.value)


FLOATS: Callable[..., Any] = lambda *shape: np.arange(np.prod(shape), dtype=np.float32).reshape(shape)  # noqa: E731


def test_the_file_knows_its_inputs_and_outputs(sums: tuple[Path, Any]) -> None:
    backend, interface = load(sums[0], {"max_batch_size": 8})
    inputs = (IO("x", "FP32", (4,)), IO("more_a", "FP32", (3,)), IO("last", "FP32", (3,)))
    outputs = tuple(IO(f"OUTPUT__{i}", "FP32", (n,)) for i, n in enumerate((3, 4, 3)))
    assert (interface.inputs, interface.outputs) == (inputs, outputs)
    requests = [{"x": FLOATS(n, 4), "more_a": FLOATS(n, 3), "last": FLOATS(n, 3) + 1} for n in (1, 3)]
    for given, outcome in zip(requests, run(backend, *[request(**given) for given in requests]), strict=True):
        x, a, last = (torch.from_numpy(array) for array in given.values())
        expected = sums[1](x, {"a": a}, 5, last=last)
        found = arrays(outcome)
        np.testing.assert_allclose(found["OUTPUT__0"], expected["y"].detach().numpy(), rtol=1e-5)
        np.testing.assert_array_equal(found["OUTPUT__2"], expected["z"][1].numpy())


@pytest.mark.parametrize(
    "inputs", [("ARGS[0]", "ARGS[1][a]", "KWARGS[last]"), ("IN__0", "IN__1", "IN__2"), ("p", "q", "r")]
)
@pytest.mark.parametrize("output", ["RESULT[z][1]", "OUT__2"])
def test_names_of_places(sums: tuple[Path, Any], inputs: tuple[str, str, str], output: str) -> None:
    config = {
        "input": [tensor(name, "TYPE_FP32", -1, n) for name, n in zip(inputs, (4, 3, 3), strict=True)],
        "output": [tensor(output, "TYPE_FP32", -1, 3)],
    }
    backend, interface = load(sums[0], config)
    assert interface == Interface()
    given = zip(inputs, (FLOATS(2, 4), FLOATS(2, 3), FLOATS(2, 3) + 1), strict=True)
    (outcome,) = run(backend, request(**dict(given)))
    np.testing.assert_array_equal(arrays(outcome)[output], FLOATS(2, 3) * 5 - (FLOATS(2, 3) + 1))


def test_a_dictionary_of_results(doubles: Path) -> None:
    backend, interface = load(doubles, {})
    assert interface.inputs == (IO("x", "FP32", (2, 3)),)
    assert interface.outputs == (IO("twice", "FP32", (2, 3)), IO("half", "FP32", (2, 3)))
    (outcome,) = run(backend, request(x=FLOATS(2, 3)))
    assert arrays(outcome)["half"].tolist() == (FLOATS(2, 3) / 2).tolist()
    backend, _ = load(doubles, {"output": [tensor("half", "TYPE_FP32", 2, 3)]})
    assert list(arrays(run(backend, request(x=FLOATS(2, 3)))[0])) == ["half"]


def test_a_shape_that_was_not_exported(doubles: Path) -> None:
    backend, _ = load(doubles, {})
    (outcome,) = run(backend, request(x=FLOATS(2, 5)))
    assert isinstance(outcome, BackendError)
    assert outcome.code == ErrorCode.INTERNAL
    assert str(outcome).startswith("PyTorch execute failure: Guard failed: x.size()[1] == 3")


X = tensor("x", "TYPE_FP32", 2, 3)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"input": [X, tensor("y", "TYPE_FP32", 1)]}, "configuration expects 2 inputs, model provides 1"),
        ({"input": [tensor("x__1", "TYPE_FP32", 2, 3)]}, "input 'x__1' is for argument 1, the model has 1"),
        (
            {"input": [tensor("x", "TYPE_INT64", 2, 3)]},
            "configuration expects datatype TYPE_INT64 for input 'x', model provides TYPE_FP32",
        ),
        (
            {"input": [tensor("x", "TYPE_FP32", 2, 4)]},
            "the model expects 2 dimensions (shape [2,3]) but the model configuration specifies 2 dimensions "
            "(shape [2,4])",
        ),
        (
            {"output": [tensor("twice", "TYPE_FP32", 6)]},
            "tensor 'twice': the model expects 2 dimensions (shape [2,3]) but the model configuration specifies 1 dim",
        ),
        ({"output": [tensor("OUTPUT__2", "TYPE_FP32", 2, 3)]}, "refers to an output index which doesn't exist"),
        ({"max_batch_size": 4}, "input 'x' was exported with shape [2,3]"),
    ],
)
def test_what_does_not_fit(doubles: Path, config: dict[str, Any], message: str) -> None:
    assert message in refusal(doubles, config)


def test_batches_beyond_those_exported(sums: tuple[Path, Any]) -> None:
    text = refusal(sums[0], {"max_batch_size": 32})
    assert "max_batch_size is 32, but the model was exported for batches of at most 16" in text
