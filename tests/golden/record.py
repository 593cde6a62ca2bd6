"""Records the golden answers from the real Triton.

    python -m tests.golden.record                  every configuration
    python -m tests.golden.record core explicit    some of them

The first time it installs tritonserver from a wheel, as the benchmarks do (`bench/triton.py`).
"""

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

from bench import triton
from bench.servers import free_ports, stop, wait_until_ready
from tests.golden.cases import TOPICS
from tests.golden.configurations import CONFIGURATIONS, Configuration
from tests.golden.exchange import Exchange
from tests.golden.normalise import normalised
from tests.golden.scenario import RECORDED, Recorded, save

Process: TypeAlias = subprocess.Popen[bytes]


@contextlib.contextmanager
def real_triton(configuration: Configuration, directory: Path) -> Iterator[tuple[dict[str, str], Process]]:
    """A running tritonserver: its addresses by role, and its process."""
    ports = dict(zip(("http", "grpc", "metrics"), free_ports(3), strict=True))
    flags = [f"--{role}-port={port}" for role, port in ports.items()]
    flags += [f"--model-repository={configuration.write(directory)}", *configuration.flags_in(directory)]
    line, environment = triton.command(*flags)
    log = directory / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(line, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        wait_until_ready(process, f"http://127.0.0.1:{ports['http']}/v2/health/ready", log)
        yield {role: f"127.0.0.1:{port}" for role, port in ports.items()}, process
    finally:
        stop(process)


def record(name: str) -> int:
    """Record one configuration; the number of requests."""
    count = 0
    with tempfile.TemporaryDirectory(prefix="golden-") as place:
        directory = Path(place)
        with real_triton(CONFIGURATIONS[name], directory) as (addresses, process), Exchange(addresses) as exchange:
            for topic, scenarios in TOPICS[name].items():
                began, recorded = time.monotonic(), []
                for scenario in scenarios:
                    answers = exchange.run(scenario.steps)
                    if process.poll() is not None:
                        raise SystemExit(f"{scenario.name} has killed tritonserver: {process.returncode}")
                    recorded.append(Recorded(scenario, tuple(normalised(each, directory) for each in answers)))
                save(RECORDED / name / f"{topic}.json", recorded)
                requests = sum(len(list(each.requests())) for each in recorded)
                print(f"{name}/{topic}: {requests} requests, {time.monotonic() - began:.1f} s", flush=True)
                count += requests
    return count


def main(names: list[str]) -> None:
    """Record the configurations of these names, all without a name."""
    unknown = [name for name in names if name not in CONFIGURATIONS]
    if unknown:
        raise SystemExit(f"no such configuration: {', '.join(unknown)}; there are {', '.join(CONFIGURATIONS)}")
    print(sum(record(name) for name in names or CONFIGURATIONS), "requests recorded")


if __name__ == "__main__":
    main(sys.argv[1:])
