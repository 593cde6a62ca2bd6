"""Installs PyTorch into the environment that runs this: the CPU build, unless the machine has an NVIDIA GPU.

A plain `pip install torch` fetches gigabytes of CUDA libraries. The version of a CPU build ends in `+cpu`: asked
for by that exact version, pip finds it or finds nothing. Without one the server does its work all the same, less
its TorchScript models, so this says what was tried and succeeds.
"""

import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
PROBE_TIMEOUT = 5.0  # seconds; pip itself would try an unreachable host for minutes

Pip = Callable[[list[str]], str]
Probe = Callable[[str], str]


@dataclass(frozen=True)
class Source:
    """A place to get a build from; `index` is None for those that pip is configured with."""

    requirement: str
    index: str | None

    def __str__(self) -> str:
        return f"{self.requirement} from {self.index or 'the indexes that pip is configured with'}"


def pinned_version(constraints: str) -> str:
    """The version in the line `torch==VERSION`; ValueError without one."""
    match = re.search(r"^torch==([\w.]+)\s*(?:#.*)?$", constraints, re.MULTILINE)
    if match is None:
        raise ValueError("the constraints do not pin torch: expected a line torch==VERSION")
    return match[1]


def sources(version: str, has_gpu: bool) -> list[Source]:
    """Where to look, in order. What pip is configured with comes first: it may be a mirror, and needs no probe."""
    if has_gpu:
        return [Source(f"torch=={version}", None)]
    return [Source(f"torch=={version}+cpu", None), Source(f"torch=={version}+cpu", CPU_INDEX)]


def install(candidates: list[Source], pip: Pip, probe: Probe) -> list[str]:
    """Installs from the first source that has it; [] when installed, else one line per source on why not.

    `pip` takes the arguments of `pip install`, `probe` a URL; both return why it failed, "" when it did not.
    """
    failures = []
    for source in candidates:
        index = [] if source.index is None else ["--extra-index-url", source.index]
        reason = probe(f"{source.index}/torch/") if source.index else ""
        reason = reason or pip([*index, source.requirement])
        if not reason:
            return []
        failures.append(f"{source}: {reason}")
    return failures


def run_pip(arguments: list[str]) -> str:
    """Runs `pip install`; its last line of errors when it fails."""
    command = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check", *arguments]
    result = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    if result.returncode == 0:
        return ""
    lines = [line.removeprefix("ERROR: ") for line in result.stderr.splitlines() if line.startswith("ERROR: ")]
    return lines[-1] if lines else f"pip exited with {result.returncode}"


def probe_url(url: str) -> str:
    """Why the URL cannot be read; "" when it can."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PROBE_TIMEOUT):
            return ""
    except OSError as error:
        return str(getattr(error, "reason", error))


def main() -> int:
    """Takes the path of a pip constraints file; the exit status."""
    constraints = Path(sys.argv[1])
    if find_spec("torch") is not None:
        return 0
    has_gpu = Path("/dev/nvidia0").exists() or shutil.which("nvidia-smi") is not None
    candidates = sources(pinned_version(constraints.read_text()), has_gpu)
    print(f"Installing {candidates[0].requirement}", flush=True)
    failures = install(candidates, run_pip, probe_url)
    if failures:
        print("torch was not installed, so TorchScript models (the demo model digits) will not load. Tried:")
        for failure in failures:
            print(f"  {failure}")
        print(f"To add it later: {sys.executable} -m pip install /path/to/a/torch-wheel.whl")
    return 0


if __name__ == "__main__":
    sys.exit(main())
