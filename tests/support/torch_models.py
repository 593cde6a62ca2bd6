"""Models of every PyTorch format, for tests: the digits' network from the demonstration's weights, and broken files."""

import shutil
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.repository import instances, tensor, write_model

DIGITS = Path(__file__).parents[2] / "examples/model_repository/digits/2/model.pt"
IMAGES = 1797
CLASS = """
import torch


class Digits(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(1, 16, kernel_size=3, padding=1)
        self.conv2 = torch.nn.Conv2d(16, 32, kernel_size=3, padding=1)
        self.hidden = torch.nn.Linear(32 * 4 * 4, 64)
        self.digit = torch.nn.Linear(64, 10)

    def forward(self, image):
        pooled = torch.max_pool2d(self.conv2(self.conv1(image).relu()).relu(), 2)
        return torch.softmax(self.digit(self.hidden(pooled.flatten(1)).relu()), dim=1)
"""


def weights() -> dict[str, Any]:
    """The trained network's, by the names that the class has for them."""
    import torch  # noqa: PLC0415  # not every test needs it

    return {name.removeprefix("network."): v.clone() for name, v in torch.jit.load(DIGITS).state_dict().items()}


def digits() -> Any:
    """An instance of the class with the trained weights."""
    found: dict[str, Any] = {}
    exec(CLASS, found)
    module = found["Digits"]()
    module.load_state_dict(weights())
    return module.eval()


def write_class(repository: Path, name: str, suffix: str, more: str = instances(1)) -> Path:
    """The digits as a class with its weights in `model.pt` or `model.safetensors`; its version's directory."""
    import torch  # noqa: PLC0415
    from safetensors.torch import save_file  # noqa: PLC0415

    config = f'backend: "pytorch"\nruntime: "model.py"\n{_io("image", "digit")}{more}\n'
    version = write_model(repository, name, config) / "1"
    (version / "model.py").write_text(CLASS)
    if suffix == "pt":
        torch.save(weights(), version / "model.pt")
    else:
        save_file(weights(), version / "model.safetensors")
    return version


def write_script(repository: Path, name: str) -> Path:
    """The demonstration's own file; its version's directory."""
    version = write_model(repository, name, f'backend: "pytorch"\n{_io("image__0", "digit__0")}{instances(1)}\n') / "1"
    shutil.copyfile(DIGITS, version / "model.pt")
    return version


def write_exported(repository: Path, name: str) -> Path:
    """The digits as an exported program, which declares its inputs and outputs; its version's directory."""
    import torch  # noqa: PLC0415

    version = write_model(repository, name, f"max_batch_size: {IMAGES}\n{instances(1)}\n") / "1"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        batch = {0: torch.export.Dim("batch", min=1, max=IMAGES)}
        exported = torch.export.export(digits(), (torch.zeros(2, 1, 8, 8),), dynamic_shapes=(batch,))
        torch.export.save(exported, version / "model.pt2")
    return version


def cut(path: Path, size: int) -> None:
    """Lose the last `size` bytes."""
    path.write_bytes(path.read_bytes()[:-size])


def rewrite(path: Path, change: Callable[[str, bytes], bytes]) -> None:
    """Write an archive anew with other contents of its entries."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, change(name, data))


def _io(image: str, digit: str) -> str:
    return (
        f"max_batch_size: {IMAGES}\ninput [ {tensor(image, dims='[ 1, 8, 8 ]')} ]\n"
        f"output [ {tensor(digit, dims='[ 10 ]')} ]\n"
    )
