"""Where models compute. What needs a GPU is marked so, and has never been run."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.workers.support import arrays, host, request, run, spec, tensor
from workers.errors import BackendError

torch = pytest.importorskip("torch")

from workers.backends.pytorch import devices  # noqa: E402
from workers.backends.pytorch.backend import PyTorchBackend  # noqa: E402
from workers.backends.pytorch.devices import Plan  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*")

UNPINNED = {"optimization": {"input_pinned_memory": {"enable": False}, "output_pinned_memory": {"enable": True}}}


@pytest.mark.parametrize(
    ("kind", "config", "has_cuda", "expected"),
    [
        ("KIND_CPU", {}, True, Plan("cpu", False, False)),
        ("KIND_GPU", {}, True, Plan("cuda:0", True, True)),
        ("KIND_GPU", UNPINNED, True, Plan("cuda:0", False, True)),
        ("KIND_MODEL", {}, True, Plan("", True, True)),
        ("KIND_MODEL", {}, False, Plan("", False, False)),
    ],
)
def test_plans(tmp_path: Path, kind: str, config: dict[str, Any], has_cuda: bool, expected: Plan) -> None:
    assert devices.plan(spec(tmp_path, config, kind=kind), has_cuda) == expected


def test_a_gpu_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="KIND_GPU but no GPUs are available"):
        devices.plan(spec(tmp_path, {}, kind="KIND_GPU"), False)


def test_what_stays_where_it_is() -> None:
    values = [torch.ones(2), ["a"]]
    assert devices.to_host(values, pins=True) == values
    assert devices.to_device(["a"], "cuda:0", pins=True) == ["a"]
    assert devices.to_device(values[0], "", pins=False) is values[0]


@pytest.mark.gpu
@pytest.mark.parametrize("pins", [True, False])
def test_there_and_back(pins: bool) -> None:
    there = devices.to_device(torch.arange(1000.0), "cuda:0", pins)
    assert there.device == torch.device("cuda:0")
    (back,) = devices.to_host([there * 2], pins)
    assert back.device.type == "cpu"
    assert back.is_pinned() == pins
    assert torch.equal(back, torch.arange(1000.0) * 2)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["KIND_GPU", "KIND_MODEL"])
@pytest.mark.parametrize("kind_of_file", ["script", "exported"])
def test_models_on_a_gpu(tmp_path: Path, kind: str, kind_of_file: str) -> None:
    (tmp_path / "1").mkdir()
    module = torch.nn.Linear(3, 2)
    expected = module(torch.ones(4, 3)).detach().numpy()
    batch = {0: torch.export.Dim("batch", min=1, max=8)}
    if kind_of_file == "script":
        torch.jit.trace(module, torch.ones(4, 3)).save(str(tmp_path / "1" / "model.pt"))
    else:
        exported = torch.export.export(module, (torch.ones(4, 3),), dynamic_shapes=(batch,))
        torch.export.save(exported, tmp_path / "1" / "model.pt2")
    config = {
        "default_model_filename": "model.pt" if kind_of_file == "script" else "model.pt2",
        "max_batch_size": 8,
        "input": [tensor("x", "TYPE_FP32", 3)],
        "output": [tensor("OUTPUT__0", "TYPE_FP32", 2)],
    }
    backend = PyTorchBackend(spec(tmp_path, config, kind=kind), host())
    backend.load()
    outcomes = run(backend, *[request(x=np.ones((n, 3), np.float32)) for n in (1, 3)])
    found = np.concatenate([arrays(outcome)["OUTPUT__0"] for outcome in outcomes])
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
    assert (torch.cuda.memory_allocated() > 0) == (kind == "KIND_GPU")
