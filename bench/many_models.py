"""Does a budget hold with many more models than fit, and how soon does a cold one answer? Two and a half minutes.

Twenty models of 100 MiB share memory for five of them under zipf-distributed requests; then a hundred trivial models
start, and each answers its first request.
"""

import argparse
import contextlib
import random
import re
import statistics
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tritonclient.http
from tritonclient.utils import InferenceServerException

from bench import servers

MIB = 2**20
MODELS, SIZE, ROOM_FOR, SECONDS, CLIENTS = 20, 100, 5, 120.0, 4
PROCESS_MIB = 40
"""What a worker has besides its model, rounded up."""
TRIVIAL = 100
ON_DEMAND = "--model-control-mode=on-demand"

SOURCE = '''"""A model that has {size} MiB of memory and answers IN as OUT."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.weights = np.ones({size} * 2**20, np.uint8)

    def execute(self, requests):
        given = [pb_utils.get_input_tensor_by_name(request, "IN").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", each)]) for each in given]
'''
CONFIG = """backend: "python"
input [ {{ name: "IN" data_type: TYPE_FP32 dims: [ -1 ] }} ]
output [ {{ name: "OUT" data_type: TYPE_FP32 dims: [ -1 ] }} ]
instance_group [ {{ kind: KIND_CPU }} ]
{more}
"""


@dataclass
class Seen:
    """What the clients and the metrics page have shown."""

    seconds: list[float] = field(default_factory=list)  # of each answer
    errors: list[str] = field(default_factory=list)
    used: list[float] = field(default_factory=list)  # bytes, each time somebody looked
    largest: float = 0.0  # bytes of the largest model


def write_models(repository: Path, count: int, size: int, more: str = "") -> list[str]:
    """Models of so many MiB, `more` in their configurations; their names."""
    names = [f"model_{number}" for number in range(count)]
    for name in names:
        version = repository / name / "1"
        version.mkdir(parents=True)
        (version / "model.py").write_text(SOURCE.format(size=size))
        (version.parent / "config.pbtxt").write_text(CONFIG.format(more=more))
    return names


def ask(client: tritonclient.http.InferenceServerClient, model: str) -> float:
    """One checked request; the seconds that it took. Raises InferenceServerException."""
    given = np.random.default_rng().random(16, dtype=np.float32)
    tensor = tritonclient.http.InferInput("IN", [16], "FP32")
    tensor.set_data_from_numpy(given)
    began = time.perf_counter()
    answer = client.infer(model, [tensor]).as_numpy("OUT")
    if not np.array_equal(answer, given):
        raise InferenceServerException(f"{model} has answered {answer} to {given}")
    return time.perf_counter() - began


def client_of(address: str) -> "contextlib.closing[tritonclient.http.InferenceServerClient]":
    """A patient connection."""
    return contextlib.closing(tritonclient.http.InferenceServerClient(address, network_timeout=60.0))


def ask_at_random(address: str, models: list[str], seed: int, end: float, seen: Seen) -> None:
    """Requests until `end`; the n-th model gets 1/n of what the first gets."""
    choose = random.Random(seed)
    weights = [1 / rank for rank in range(1, len(models) + 1)]
    with client_of(address) as client:
        while time.monotonic() < end:
            (model,) = choose.choices(models, weights)
            try:
                seen.seconds.append(ask(client, model))
            except InferenceServerException as error:
                seen.errors.append(f"{model}: {error}")


def metric(address: str, name: str) -> list[float]:
    """The values of a metric's samples."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=30) as page:
        lines = page.read().decode()
    return [float(value) for value in re.findall(rf"^{name}(?:{{[^\n]*}})? (\S+)$", lines, re.M)]


def share(http: str, metrics: str, models: list[str], clients: int, seconds: float) -> Seen:
    """Clients ask for models at random, while somebody looks at the memory."""
    seen = Seen()
    end = time.monotonic() + seconds
    threads = [threading.Thread(target=ask_at_random, args=(http, models, seed, end, seen)) for seed in range(clients)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        seen.used += metric(metrics, "tidepool_memory_used_bytes")
        seen.largest = max(seen.largest, *metric(metrics, "tidepool_model_memory_bytes"))
        time.sleep(0.1)
    return seen


@contextlib.contextmanager
def serving(count: int, size: int, *flags: str) -> Iterator[tuple[servers.Server, list[str]]]:
    """Our server with so many models in mode on-demand."""
    with tempfile.TemporaryDirectory() as directory:
        names = write_models(Path(directory), count, size)
        with servers.tidepool(Path(directory), ON_DEMAND, *flags) as server:
            yield server, names


def budget(seconds: float) -> None:
    """Many models under a budget."""
    limit = ROOM_FOR * (SIZE + PROCESS_MIB) * MIB
    with serving(MODELS, SIZE, f"--model-memory-budget={limit}") as (server, names):
        http, page = ("{}:{}".format(*address) for address in (server.http, server.metrics))
        seen = share(http, page, names, CLIENTS, seconds)
        requests = len(seen.seconds)
        cold, loads = (sum(metric(page, f"tidepool_model_{what}")) for what in ("cold_requests", "loads"))
        took = sorted(seen.seconds)
        print(f"{MODELS} models of {SIZE} MiB, room for {ROOM_FOR}, {CLIENTS} clients, {seconds:g} s")
        print(f"  requests          {requests}, {len(seen.errors)} errors")
        print(f"  in memory already {1 - cold / max(1, requests):.1%}; {loads:.0f} loads")
        print(f"  answered after    p50 {took[requests // 2]:.3f} s, p99 {took[requests * 99 // 100]:.3f} s, ", end="")
        print(f"longest {took[-1]:.3f} s")
        print(f"  budget            {limit / MIB:.0f} MiB; used at most {max(seen.used) / MIB:.0f} MiB, ", end="")
        print(f"largest model {seen.largest / MIB:.0f} MiB")
        for error in seen.errors[:10]:
            print(f"  error: {error}")


def cold_starts() -> None:
    """A hundred trivial models, one after the other."""
    began = time.monotonic()
    with serving(TRIVIAL, 0) as (server, names):
        ready = time.monotonic() - began
        with client_of("{}:{}".format(*server.http)) as client:
            took = [ask(client, name) for name in names]
        print(f"{TRIVIAL} trivial models: ready after {ready:.2f} s")
        print(f"  first answer      median {statistics.median(took):.3f} s, longest {max(took):.3f} s")


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long the models are asked under the budget")
    arguments = parser.parse_args()
    budget(arguments.seconds)
    cold_starts()


if __name__ == "__main__":
    main()
