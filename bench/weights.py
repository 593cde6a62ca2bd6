"""How much memory do the weights of four instances take, in each format of PyTorch models?

PSS counts a page that several processes share in parts: four instances that share their weights have them once.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from bench import servers

INSTANCES = 4
SETTLE_SECONDS = 300.0
WIDTH = 4096
CLASS = """
import torch


class Layers(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList([torch.nn.Linear({width}, {width}, bias=False) for _ in range({count})])

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x
"""
CONFIG = """
backend: "pytorch"
input {{ name: "x" data_type: TYPE_FP32 dims: [ 1, {width} ] }}
output {{ name: "OUTPUT__0" data_type: TYPE_FP32 dims: [ 1, {width} ] }}
instance_group {{ count: {instances} kind: KIND_CPU }}
model_warmup {{ name: "zeros" batch_size: 1 inputs {{ key: "x" value {{
  data_type: TYPE_FP32 dims: [ 1, {width} ] zero_data: true }} }} }}
"""
CLASS_RUNTIME = 'runtime: "model.py"\n'
SHARING = 'parameters { key: "ENABLE_WEIGHT_SHARING" value { string_value: "true" } }\n'

Save = Callable[[Any, Path], object]


def as_class(save: Save) -> Save:
    """A class beside its weights."""

    def write(module: Any, version: Path) -> None:
        (version / "model.py").write_text(CLASS.format(width=WIDTH, count=len(module.layers)))
        save(module.state_dict(), version)

    return write


def as_script(module: Any, version: Path) -> None:
    """TorchScript."""
    torch.jit.trace(module, torch.ones(1, WIDTH)).save(str(version / "model.pt"))


def as_exported(module: Any, version: Path) -> None:
    """An exported program."""
    torch.export.save(torch.export.export(module, (torch.ones(1, WIDTH),)), version / "model.pt2")


CASES: dict[str, tuple[Save, str]] = {
    "class, safetensors": (as_class(lambda state, v: save_file(state, v / "model.safetensors")), CLASS_RUNTIME),
    "class, state dict": (as_class(lambda state, v: torch.save(state, v / "model.pt")), CLASS_RUNTIME),
    "TorchScript": (as_script, ""),
    "TorchScript, ENABLE_WEIGHT_SHARING": (as_script, SHARING),
    "exported": (as_exported, ""),
    "exported, ENABLE_WEIGHT_SHARING": (as_exported, SHARING),
}


def workers(server: int) -> list[int]:
    """The processes that host instances."""
    children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
    return [int(pid) for pid in children if b"\0workers\0" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def megabytes(pid: int, key: str) -> float:
    """`Pss` or `Rss` of a process."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) / 1024


def settled(server: int, size: int) -> tuple[float, float]:
    """RSS and PSS of all workers together, once they all have touched their weights of this size, and rest."""
    deadline, seen = time.monotonic() + SETTLE_SECONDS, [0.0]
    while time.monotonic() < deadline:
        pids = workers(server)
        seen.append(sum(megabytes(pid, "Pss") for pid in pids))
        resident = [megabytes(pid, "Rss") for pid in pids]
        if len(pids) == INSTANCES and min(resident) > size and max(seen[-3:]) - min(seen[-3:]) < 2:
            return sum(resident), seen[-1]
        time.sleep(2)
    raise SystemExit("the instances did not settle")


def measure(module: Any, save: Save, more: str) -> tuple[float, float]:
    """RSS and PSS of the instances of a model in one format."""
    repository = Path(tempfile.mkdtemp(prefix="tidepool-weights-"))
    try:
        version = repository / "layers" / "1"
        version.mkdir(parents=True)
        save(module, version)
        config = CONFIG.format(width=WIDTH, instances=INSTANCES) + more
        (version.parent / "config.pbtxt").write_text(config)
        with servers.tidepool(repository) as server:
            return settled(server.pid, len(module.layers) * WIDTH * WIDTH * 4 >> 20)
    finally:
        shutil.rmtree(repository)


def main() -> None:
    """Print a table of all formats."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=400, help="the size of the weights")
    count = max(1, parser.parse_args().megabytes * (1 << 20) // (WIDTH * WIDTH * 4))
    found: dict[str, Any] = {}
    exec(CLASS.format(width=WIDTH, count=count), found)
    module = found["Layers"]().eval()
    print(f"{count * WIDTH * WIDTH * 4 >> 20} MB of weights, {INSTANCES} instances; MB of all of them together")
    print(f"| {'format':34} | {'RSS':>5} | {'PSS':>5} |\n|{'-' * 36}|------:|------:|")
    for name, (save, more) in CASES.items():
        rss, pss = measure(module, save, more)
        print(f"| {name:34} | {rss:5.0f} | {pss:5.0f} |", flush=True)


if __name__ == "__main__":
    main()
