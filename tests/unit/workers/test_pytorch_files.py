"""What model files are, and weights that instances share."""

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from workers.backends.pytorch import archive, sharing  # noqa: E402
from workers.backends.pytorch.archive import Format  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*")


class Linear(torch.nn.Module):
    """Weights of 256 KB, a bias of less than a page, and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(256, 256)
        self.register_buffer("table", torch.arange(20_000))

    def forward(self, x: Any) -> Any:
        return self.linear(x) + self.table[0]


def save(path: Path) -> None:
    """As TorchScript."""
    torch.jit.trace(Linear(), torch.ones(1, 256)).save(str(path))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["m/data.pkl", "m/data/0", "m/constants.pkl", "m/code/__torch__.py"], Format.SCRIPT),
        (["m/data.pkl", "m/data/0", "m/version"], Format.PICKLED),
        (["m/models/model.json", "m/data/weights/weight_0"], Format.EXPORTED),
        (["serialized_exported_program.json", "version"], Format.EXPORTED),
        (["m/data/aotinductor/model/x.so", "m/models/model.json"], Format.COMPILED),
        (["word/document.xml"], None),
        ([], None),
    ],
)
def test_what_an_archive_is(names: list[str], expected: Format | None) -> None:
    assert archive.identify(names) == expected


def test_what_a_file_is(tmp_path: Path) -> None:
    script, pickled = tmp_path / "a.pt2", tmp_path / "b.pt"
    save(script)
    torch.save(Linear().state_dict(), pickled)
    assert archive.format_of(script) == Format.SCRIPT
    assert archive.format_of(pickled) == Format.PICKLED
    assert archive.format_of(pickled.rename(tmp_path / "c.pt2")) == Format.EXPORTED  # what is left of one
    assert archive.format_of(tmp_path / "missing.pt2") == Format.EXPORTED
    assert archive.format_of(tmp_path / "missing.py") == Format.CLASS


def test_weights_lie_where_the_file_is_mapped(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    save(path)
    module = torch.jit.load(str(path))
    x = torch.ones(1, 256)
    before, bias = module(x), module.linear.bias.data_ptr()
    assert sharing.share([*module.parameters(), *module.buffers()], path) == 256 * 256 * 4 + 20_000 * 8
    assert torch.equal(module(x), before)
    assert module.linear.bias.data_ptr() == bias  # too small
    maps = [line for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(str(path))]
    spans = [[int(end, 16) for end in line.split()[0].split("-")] for line in maps]
    assert any(start <= module.linear.weight.data_ptr() < end for start, end in spans)
    with torch.no_grad():
        module.linear.weight.zero_()  # the model's own affair
    assert torch.jit.load(str(path)).linear.weight.abs().sum() > 0


def test_tensors_of_another_content_stay(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    save(path)
    other = torch.zeros(256, 256)
    assert sharing.share([other, other.t()[:, ::2]], path) == 0
