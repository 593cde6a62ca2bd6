"""What serving costs: requests per second over executions per second of the same file in a bare loop of its runtime.

One instance with one thread on both sides, over HTTP with a few requests in flight, server and loop in turn.
"""

import argparse
import contextlib
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bench import servers
from bench.comparison import machine
from bench.connection import connect
from bench.http_client import HttpConnection, infer_request
from bench.load import measure
from bench.networks import resnet

EXAMPLES = Path(__file__).parents[1] / "examples" / "model_repository"
CONCURRENCY = 4
ROUNDS = 5
WARM_UP = 1.0
SECONDS = 4.0


class Backend(NamedTuple):
    """A model's file, the part of a config.pbtxt that asks for one thread, and the demo model of the same digits."""

    file: str
    one_thread: str
    demo: str
    names: Mapping[str, tuple[str, str]]
    """Input and output of each network."""


BACKENDS = {
    "pytorch": Backend(
        "model.pt",
        'parameters { key: "INTRA_OP_THREAD_COUNT" value { string_value: "1" } }',
        "digits/2",
        dict.fromkeys(("digits", "resnet50"), ("INPUT__0", "OUTPUT__0")),
    ),
    "onnxruntime": Backend(
        "model.onnx",
        'parameters { key: "intra_op_thread_count" value { string_value: "1" } }',
        "digits_onnx/1",
        {"digits": ("image", "probabilities"), "resnet50": ("image", "scores")},
    ),
}
NETWORKS: Mapping[str, tuple[tuple[int, ...], int, tuple[int, ...]]] = {
    "digits": ((1, 8, 8), 10, (1, 16)),
    "resnet50": (resnet.IMAGE, resnet.CLASSES, (1, 4)),
}
"""The shape of an image, the number of classes, the batch sizes to look at."""


def write_model(repository: Path, network: str, backend: str) -> Path:
    """The network's file in a model directory of its own."""
    made = BACKENDS[backend]
    directory = repository / f"{network}_{backend}"
    file = directory / "1" / made.file
    file.parent.mkdir(parents=True)
    if network == "digits":
        shutil.copy(EXAMPLES / made.demo / made.file, file)
    else:
        subprocess.run([sys.executable, "-m", "bench.networks", "write", backend, file], check=True)
    image, classes, batches = NETWORKS[network]
    given, answered = made.names[network]
    (directory / "config.pbtxt").write_text(
        f'backend: "{backend}"\nmax_batch_size: {max(batches)}\n{made.one_thread}\n'
        f'input {{ name: "{given}" data_type: TYPE_FP32 dims: {list(image)} }}\n'
        f'output {{ name: "{answered}" data_type: TYPE_FP32 dims: [ {classes} ] }}\n'
        "instance_group { count: 1 kind: KIND_CPU }\n"
    )
    return file


@contextlib.contextmanager
def bare_loop(backend: str, file: Path, shape: tuple[int, ...]) -> Iterator[Callable[[float], float]]:
    """A process with the bare loop; call it with seconds for executions per second."""
    line = [sys.executable, "-m", "bench.networks", "loop", backend, str(file), ",".join(map(str, shape))]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        asked, told = process.stdin, process.stdout
        if told.readline() != "ready\n":
            raise SystemExit(f"{' '.join(line)} ended with {process.wait()}")

        def run(seconds: float) -> float:
            print(seconds, file=asked, flush=True)
            return float(told.readline())

        try:
            yield run
        finally:
            asked.close()


def served(server: servers.Server, model: str, backend: Backend, network: str, batch: int) -> float:
    """Requests per second, each of a whole batch."""
    given, answered = backend.names[network]
    image, classes, _ = NETWORKS[network]
    data = np.random.default_rng(0).random((batch, *image), dtype=np.float32)
    request = infer_request(model, data, tensor=given, answer=answered)
    least = batch * classes * data.itemsize
    connections = [HttpConnection(connect(server.http), [request], least) for _ in range(CONCURRENCY)]
    return measure(connections, server.pid, WARM_UP, SECONDS).throughput


def main() -> None:
    """Read the command line, write the models, and print the table row by row as it is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backends", nargs="*", default=[*BACKENDS], help=f"of {', '.join(BACKENDS)}; default: all")
    chosen = parser.parse_args().backends
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, so that no server is left behind
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        repository = Path(place)
        print("Writing the models", file=sys.stderr)
        files = {(n, b): write_model(repository, n, b) for n in NETWORKS for b in chosen}
        with servers.tidepool(repository) as server:
            print(f"{machine()}; medians of {ROUNDS} rounds of {SECONDS} s each")
            print(f"{'network':10}{'backend':14}{'batch':>6}{'bare /s':>10}{'served /s':>11}{'share':>8}")
            for (network, backend), file in files.items():
                image, _, batches = NETWORKS[network]
                for batch in batches:
                    with bare_loop(backend, file, (batch, *image)) as loop:
                        rounds = [
                            (loop(SECONDS), served(server, f"{network}_{backend}", BACKENDS[backend], network, batch))
                            for _ in range(ROUNDS)
                        ]
                    bare, ours = (statistics.median(column) for column in zip(*rounds, strict=True))
                    share = statistics.median(b / a for a, b in rounds)
                    print(f"{network:10}{backend:14}{batch:6}{bare:10.1f}{ours:11.1f}{share:8.3f}", flush=True)


if __name__ == "__main__":
    main()
