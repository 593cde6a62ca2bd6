"""Packages of AOTInductor. Compiling takes a compiler and many seconds: the package is kept between runs."""

import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.workers.support import arrays, host, request, run, spec, tensor
from workers.backend import IO, Interface
from workers.errors import BackendError

torch = pytest.importorskip("torch")

from workers.backends.pytorch import compiled  # noqa: E402
from workers.backends.pytorch.backend import PyTorchBackend  # noqa: E402

pytestmark = [
    pytest.mark.skipif(shutil.which("g++") is None, reason="AOTInductor needs a C++ compiler"),
    pytest.mark.filterwarnings("ignore"),
]


class Sums(torch.nn.Module):
    def forward(self, x: Any, y: Any) -> Any:
        return {"sum": x + y, "difference": x - y}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A model for batches of at most 16."""
    cache = request.config.cache
    assert cache is not None
    package = cache.mkdir("aoti") / f"any-sums-{torch.__version__}.pt2"
    if not package.exists():
        batch = {0: torch.export.Dim("batch", min=1, max=16)}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exported = torch.export.export(Sums(), (torch.ones(2, 3), torch.zeros(2, 3)), dynamic_shapes=(batch, batch))
            draft = package.with_suffix(".draft.pt2")
            options = {"aot_inductor.check_lowerbound": False}
            torch._inductor.aoti_compile_and_package(exported, package_path=str(draft), inductor_configs=options)
        draft.rename(package)
    found = tmp_path_factory.mktemp("sums")
    (found / "1").mkdir()
    shutil.copyfile(package, found / "1" / "model.pt2")
    return found


def load(directory: Path, config: dict[str, Any]) -> tuple[PyTorchBackend, Interface]:
    backend = PyTorchBackend(spec(directory, {"default_model_filename": "model.pt2", **config}), host())
    return backend, backend.load()


def test_a_package_knows_how_many_tensors_it_takes(directory: Path) -> None:
    backend, interface = load(directory, {"max_batch_size": 8})
    assert interface.inputs == (IO("INPUT__0", "", None), IO("INPUT__1", "", None))
    assert interface.outputs == (IO("sum", "", None), IO("difference", "", None))
    ones = [np.ones((n, 3), np.float32) for n in (1, 2)]
    outcomes = run(backend, *[request(INPUT__0=x * 5, INPUT__1=x) for x in ones])
    for x, outcome in zip(ones, outcomes, strict=True):
        assert {n: a.tolist() for n, a in arrays(outcome).items()} == {
            "sum": (x * 6).tolist(),
            "difference": (x * 4).tolist(),
        }


def test_names_of_places(directory: Path) -> None:
    inputs = [tensor("ARGS[1]", "TYPE_FP32", -1, 3), tensor("ARGS[0]", "TYPE_FP32", -1, 3)]
    backend, _ = load(directory, {"input": inputs, "output": [tensor("RESULT[difference]", "TYPE_FP32", -1, 3)]})
    ones = np.ones((1, 3), np.float32)
    (outcome,) = run(backend, request(**{"ARGS[1]": ones, "ARGS[0]": ones * 3}))
    assert arrays(outcome)["RESULT[difference]"].tolist() == [[2.0, 2.0, 2.0]]


@pytest.mark.parametrize("shape", [(2, 2), (17, 3), (6,)])
def test_shapes_that_the_code_was_not_made_for(directory: Path, shape: tuple[int, ...]) -> None:
    """Without checks it would read memory beyond the tensor."""
    backend, _ = load(directory, {})
    (outcome,) = run(backend, request(INPUT__0=np.ones(shape, np.float32), INPUT__1=np.ones(shape, np.float32)))
    assert isinstance(outcome, BackendError)
    assert str(outcome).startswith("PyTorch execute failure: input_handles[0]")


def test_a_batch_that_is_too_small_for_code_that_was_compiled_without_thinking_of_it() -> None:
    found = "input_handles[0]: dim value is too small at 0, expected it to be >= 2, but got: 1"
    assert "aot_inductor.check_lowerbound" in compiled.explained(found)
    assert compiled.explained("another") == "another"


def test_a_missing_input(directory: Path) -> None:
    backend, _ = load(directory, {})
    (outcome,) = run(backend, request(INPUT__0=np.ones((1, 3), np.float32)))
    assert isinstance(outcome, BackendError)
    assert "all of its inputs" in str(outcome)


def test_inputs_that_are_not_all_there(directory: Path) -> None:
    with pytest.raises(BackendError, match="configuration expects 1 inputs, model provides 2"):
        load(directory, {"input": [tensor("x", "TYPE_FP32", 3)]})
