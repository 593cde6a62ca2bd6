"""Every format of PyTorch models through the whole server: equal answers, strings, shared weights, broken files."""

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.support.clients import PROTOCOLS, Client
from tests.support.repository import instances, tensor, write_model
from tests.support.server import Server
from tests.support.waiting import until

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from tests.support import torch_models  # noqa: E402
from tests.support.torch_models import cut, rewrite, write_class, write_exported, write_script  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.*"),
    pytest.mark.timeout(600),  # the sixteen workers import PyTorch all at once
]

TEXTS = """
def forward(self, words: List[str], more: Tensor):
    return [word + "!" for word in words], torch.tensor([[len(word)] for word in words]) + more
"""
THREADS = """
import torch


class Threads(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.large = torch.nn.Linear(1024, 1024)

    def forward(self, x):
        assert x.device == self.large.weight.device
        return torch.tensor([torch.get_num_threads(), torch.get_num_interop_threads()]) + int(self.large.weight.sum())
"""


def write_texts(repository: Path) -> None:
    one = "dims: [ 1 ] reshape { shape: [ ] }"
    config = (
        'platform: "pytorch_libtorch"\nmax_batch_size: 8\n'
        f'input [ {{ name: "words" data_type: TYPE_STRING {one} }}, {tensor("more", "TYPE_INT64", "[ 1 ]")} ]\n'
        f'output [ {{ name: "LOUD__0" data_type: TYPE_STRING {one} }}, {tensor("LENGTH__1", "TYPE_INT64", "[ 1 ]")} ]\n'
        f"{instances(1)}\n"
    )
    module = type("Module", (torch.jit.ScriptModule,), {})()
    module.define(TEXTS)
    module.save(str(write_model(repository, "texts", config) / "1" / "model.pt"))


def write_threads(repository: Path) -> Path:
    """A class of two instances that place themselves, with 4 MB of weights; the weights' file."""
    from safetensors.torch import save_file  # noqa: PLC0415

    parameters = {
        "NUM_THREADS": 3,
        "NUM_INTEROP_THREADS": 2,
        "TORCH_COMPILE_OPTIONAL_PARAMETERS": '{\\"disable\\": true}',
    }
    config = 'backend: "pytorch" runtime: "model.py"\n' + instances(2, "KIND_MODEL")
    config += f"\ninput [ {tensor('x')} ]\noutput [ {tensor('y', 'TYPE_INT64')} ]\n"
    zeros = "value { data_type: TYPE_FP32 dims: [ 1 ] zero_data: true }"
    config += f'model_warmup {{ name: "zeros" batch_size: 1 inputs {{ key: "x" {zeros} }} }}\n'
    for key, value in parameters.items():
        config += f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'
    version = write_model(repository, "threads", config) / "1"
    (version / "model.py").write_text(THREADS)
    path = version / "model.safetensors"
    save_file({"large.weight": torch.zeros(1024, 1024), "large.bias": torch.zeros(1024)}, path)
    return path


def write_broken(repository: Path) -> dict[str, tuple[Path, str]]:
    """Models that cannot be loaded: the file that is to blame, and what is to be said of it."""
    expected = {}

    def add(name: str, path: Path, text: str) -> Path:
        expected[name] = (path, text)
        return path

    def script(name: str, text: str) -> Path:
        return add(name, write_script(repository, name) / "model.pt", text)

    cut(script("script_cut", "failed finding central directory"), 200)
    script("script_empty", "not a ZIP archive").write_bytes(b"")
    rewrite(script("script_code", "expected"), lambda name, data: b"def (" if name.endswith(".py") else data)
    torch.save(torch_models.weights(), script("script_weights", "whose class must be in a model.py"))

    version = write_class(repository, "class_weights_cut", "pt")
    cut(add("class_weights_cut", version / "model.pt", "PytorchStreamReader failed"), 200)
    version = write_class(repository, "class_tensors_cut", "safetensors")
    cut(add("class_tensors_cut", version / "model.safetensors", "deserializing header"), 200)
    version = write_class(repository, "class_syntax", "pt")
    add("class_syntax", version / "model.py", "SyntaxError").write_text("class Digits(:\n")
    version = write_class(repository, "class_other", "pt")
    torch.save({"w": torch.ones(1)}, add("class_other", version / "model.pt", "Missing key(s) in state_dict"))

    version = write_exported(repository, "exported_cut")
    cut(add("exported_cut", version / "model.pt2", "no archive of torch.export.save"), 200)
    version = write_model(repository, "exported_graph", "") / "1"
    (version / "model.pt2").write_bytes((repository / "digits_exported/1/model.pt2").read_bytes())
    path = add("exported_graph", version / "model.pt2", "Unterminated string")
    rewrite(path, lambda name, data: data[:100] if name.endswith("models/model.json") else data)
    return expected


class Formats:
    """The server, and what it should have found."""

    def __init__(self, server: Server) -> None:
        self.server = server
        repository = server.repository
        write_script(repository, "digits_script")
        write_exported(repository, "digits_exported")
        write_class(repository, "digits_state_dict", "pt")
        write_class(repository, "digits_safetensors", "safetensors")
        write_texts(repository)
        self.weights = write_threads(repository)
        self.broken = write_broken(repository)

    def index(self) -> dict[str, dict[str, str]]:
        """State and reason of every model."""
        request = urllib.request.Request(
            f"http://{self.server.address('http')}/v2/repository/index", b"", method="POST"
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return {entry["name"]: {"state": "", **entry} for entry in json.load(answer)}


@pytest.fixture(scope="module")
def formats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Formats]:
    server = Server(tmp_path_factory.mktemp("formats"), "", "--exit-on-error=false")
    found = Formats(server)
    with server.start(wait="live"):
        until(
            lambda: all(e["state"] in ("READY", "UNAVAILABLE") for e in found.index().values()), 480, "all have loaded"
        )
        yield found


@pytest.fixture(params=PROTOCOLS)
def client(request: pytest.FixtureRequest, formats: Formats) -> Iterator[Client]:
    with Client(request.param, formats.server) as connected:
        yield connected


def test_all_formats_read_the_same_digits(formats: Formats) -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    images = np.rint(datasets.load_digits().images * (255 / 16)).astype(np.float32)[:, np.newaxis] / 255
    assert images.shape == (torch_models.IMAGES, 1, 8, 8)
    with Client("grpc", formats.server) as client:
        expected = client.infer("digits_script", {"image__0": images})["digit__0"]
        assert (expected.argmax(axis=1) == datasets.load_digits().target).mean() > 0.97
        for name, image, digit in (
            ("digits_exported", "image", "OUTPUT__0"),
            ("digits_state_dict", "image", "digit"),
            ("digits_safetensors", "image", "digit"),
        ):
            found = client.infer(name, {image: images})[digit]
            np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=name)
            np.testing.assert_array_equal(found.argmax(axis=1), expected.argmax(axis=1))


def test_strings(client: Client) -> None:
    words = np.array([["a"], ["b c"], [""]], dtype=np.object_)
    found = client.infer("texts", {"words": words, "more": np.full((3, 1), 10, np.int64)})
    assert found["LOUD__0"].tolist() == [[b"a!"], [b"b c!"], [b"!"]]
    assert found["LENGTH__1"].tolist() == [[11], [13], [10]]


def test_threads_are_those_of_the_parameters(client: Client) -> None:
    assert client.infer("threads", {"x": np.zeros(1, np.float32)})["y"].tolist() == [3, 2]


def test_an_exported_program_declares_itself(client: Client) -> None:
    metadata = client.raw.get_model_metadata(
        "digits_exported", **({"as_json": True} if client.protocol == "grpc" else {})
    )
    assert metadata["platform"] == "torch_aoti"
    (image,) = metadata["inputs"]
    assert (image["name"], image["datatype"], [int(n) for n in image["shape"]]) == ("image", "FP32", [-1, 1, 8, 8])


def test_instances_share_the_pages_of_their_weights(formats: Formats) -> None:
    def pages() -> list[dict[str, int]]:
        return [found for pid in formats.server.pids() if (found := _mapping(pid, formats.weights))]

    def are_shared() -> bool:
        found = pages()
        return len(found) == 2 and all(f["Rss"] > 4000 and f["Pss"] < 0.6 * f["Rss"] for f in found)

    until(are_shared, 120, "both instances have touched their weights, when they were warmed up, and share them")


def _mapping(pid: int, path: Path) -> dict[str, int]:
    """The sizes of a file's mapping in a process in KB, {} if it has none."""
    lines = iter(Path(f"/proc/{pid}/smaps").read_text().splitlines())
    for line in lines:
        if line.endswith(str(path)):
            return {key: int(next(lines).split()[1]) for key in ("Size", "KernelPageSize", "MMUPageSize", "Rss", "Pss")}
    return {}


def test_a_broken_file_is_an_error_that_names_it(formats: Formats) -> None:
    index = formats.index()
    assert len(formats.broken) == 10
    for name, (path, text) in formats.broken.items():
        entry = index[name]
        assert entry["state"] == "UNAVAILABLE", entry
        assert str(path) in entry["reason"], entry
        assert text in entry["reason"], entry
    assert {e["name"] for e in index.values() if e["state"] == "READY"} == index.keys() - formats.broken.keys()
