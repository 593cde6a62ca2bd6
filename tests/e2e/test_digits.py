"""The demonstration: three models that read handwritten digits, over both protocols, as the README shows."""

import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from examples.classify_digits import MODELS, REQUIRED, DemoModel, classify_all, connect, load_scans
from tests.support.server import Server
from tests.support.waiting import until

ROOT = Path(__file__).resolve().parents[2]
FRAMEWORKS = {"digits": "torch", "digits_onnx": "onnxruntime", "digits_python": "PIL"}
IS_COMPLETE = all(find_spec(name) for name in FRAMEWORKS.values())


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server of `make run`, with what of its models can be loaded here."""
    text = (ROOT / "configs/server.pbtxt").read_text()
    repository = f"--model-repository={ROOT}/examples/model_repository"
    server = Server(tmp_path_factory.mktemp("demo"), text, repository, f"--exit-on-error={IS_COMPLETE}".lower())
    with server.start(wait="ready" if IS_COMPLETE else "live"):
        until(lambda: ("after" in server.log() and "started" in server.log()) or IS_COMPLETE, 60, "all have been tried")
        yield server


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_nine_of_ten_digits_are_recognised(demo: Server, model: DemoModel, protocol: str) -> None:
    if find_spec(FRAMEWORKS[model.name]) is None:
        pytest.skip(f"{FRAMEWORKS[model.name]} is not installed")
    (client,) = [c for c in connect(demo.address("http"), demo.address("grpc")) if c.name == protocol]
    assert classify_all(client, model, load_scans(ROOT / "examples/data")) >= REQUIRED


@pytest.mark.skipif(not IS_COMPLETE, reason="some of PyTorch, ONNX Runtime and Pillow are not installed")
def test_the_example_client_is_content(demo: Server) -> None:
    command = [sys.executable, str(ROOT / "examples/classify_digits.py")]
    command += ["--http", demo.address("http"), "--grpc", demo.address("grpc")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count(" right, median ") == 6
