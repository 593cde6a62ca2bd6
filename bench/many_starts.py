"""How long do a hundred models take to be ready, and how much memory do they take, compared with the real Triton?

And how long does one more instance of a PyTorch model take, in a server that runs? A minute or two.
"""

import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from bench import servers
from bench.comparison import machine
from bench.cpu import tree
from bench.servers import Server

MODELS = 100
ROUNDS = 3
PATIENCE = 600.0
"""Seconds that a server may take for all of them, and one for one more instance."""
EXAMPLES = Path(__file__).parent.parent / "examples" / "model_repository"
CONFIG = """backend: "python"
input [ { name: "IN" data_type: TYPE_FP32 dims: [ -1 ] } ]
output [ { name: "OUT" data_type: TYPE_FP32 dims: [ -1 ] } ]
instance_group [ { count: 1 kind: KIND_CPU } ]
"""
SOURCE = """import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        tensors = [pb_utils.get_input_tensor_by_name(request, "IN").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", tensor)]) for tensor in tensors]
"""
WEIGHTS = """import sys, time, torch
began = time.monotonic()
torch.jit.load(sys.argv[1])
print(time.monotonic() - began)
"""


class Start(NamedTuple):
    """What a start took: seconds until everything was ready, bytes of memory (PSS) of all processes then."""

    seconds: float
    pss: int


def write_python_models(repository: Path) -> None:
    """Models that do nothing, with an instance each."""
    for number in range(MODELS):
        directory = repository / f"trivial_{number}" / "1"
        directory.mkdir(parents=True)
        (directory / "model.py").write_text(SOURCE)
        (directory.parent / "config.pbtxt").write_text(CONFIG)


def write_onnx_models(repository: Path) -> None:
    """Copies of the example for ONNX Runtime."""
    for number in range(MODELS):
        directory = repository / f"digits_onnx_{number}"
        shutil.copytree(EXAMPLES / "digits_onnx", directory)
        config = directory / "config.pbtxt"
        config.write_text(config.read_text().replace('name: "digits_onnx"', f'name: "{directory.name}"'))


def proportional_set_size(pid: int) -> int:
    """Of a process and all its descendants: what they share counts once."""
    total = 0
    for process in tree(pid):
        try:
            text = Path(f"/proc/{process}/smaps_rollup").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue  # ended meanwhile
        match = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
        total += int(match[1]) * 1024 if match else 0
    return total


def start(serve: Callable[..., AbstractContextManager[Server]], repository: Path) -> Start:
    """Starts a server, measures it when it is ready, and stops it."""
    began = time.monotonic()
    with serve(repository, patience=PATIENCE) as server:
        return Start(time.monotonic() - began, proportional_set_size(server.pid))


def seconds_for_one_more(repository: Path) -> float:
    """From the edit of `count` until the instance is ready; what the file watcher waits for is in it."""
    shutil.copytree(EXAMPLES / "digits", repository / "digits")
    config = repository / "digits" / "config.pbtxt"
    with servers.tidepool(repository, patience=PATIENCE) as server:
        url = "http://{}:{}/metrics".format(*server.metrics)
        wait_for_instances(url, 2)
        began = time.monotonic()
        text = config.read_text()
        config.write_text(text.replace("count: 2", "count: 3"))
        wait_for_instances(url, 3)
        return time.monotonic() - began


def wait_for_instances(url: str, count: int) -> None:
    """Until so many are ready."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        with urllib.request.urlopen(url, timeout=10) as page:
            if len(re.findall(rb"^tidepool_instance_ready\{.*\} 1", page.read(), re.MULTILINE)) == count:
                return
        time.sleep(0.01)
    raise SystemExit(f"there are no {count} instances after {PATIENCE} s")


def seconds_for_weights() -> float:
    """What PyTorch takes to load the example's weights, in a process that has imported it."""
    path = EXAMPLES / "digits" / "2" / "model.pt"
    return float(subprocess.run([sys.executable, "-c", WEIGHTS, path], check=True, stdout=subprocess.PIPE).stdout)


def row(label: str, found: Start) -> str:
    """A line of the table."""
    return f"{label:34}{found.seconds:9.2f} s{found.pss / 1e6:9.0f} MB"


def main() -> None:
    """Prints the table."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, so that no server is left behind
    with tempfile.TemporaryDirectory() as scratch:
        python, onnx, torch = (Path(scratch) / name for name in ("python", "onnx", "torch"))
        write_python_models(python)
        write_onnx_models(onnx)
        print(f"{machine()}; {MODELS} models with an instance each, until all are ready")
        ours, theirs = start(servers.tidepool, python), start(servers.real_triton, python)
        print(row("Python, Tidepool", ours))
        print(row("Python, Triton", theirs))
        print(f"{'Tidepool / Triton':34}{ours.seconds / theirs.seconds:11.2f}{ours.pss / theirs.pss:12.2f}")
        print(row("ONNX Runtime, Tidepool", start(servers.tidepool, onnx)))
        torch.mkdir()
        print(f"one more instance of a PyTorch model: {seconds_for_one_more(torch):.2f} s after the edit of count,")
        print(f"of which the weights alone {seconds_for_weights():.2f} s, and 0.25 to 0.5 s the watcher's two looks")


if __name__ == "__main__":
    main()
