"""Makes a file, and runs one in a bare loop of its runtime, with one thread.

    python -m bench.networks write pytorch FILE
    python -m bench.networks loop pytorch FILE 1,3,224,224

Each line with a number of seconds on stdin of the loop is answered with the executions per second in as many seconds.
"""

import sys
from importlib import import_module
from pathlib import Path
from time import perf_counter

import numpy as np


def main() -> None:
    """Do what the command line says."""
    what, backend, file, *shape = sys.argv[1:]
    runtime = import_module(f"bench.networks.{backend}")
    if what == "write":
        runtime.write_resnet50(Path(file))
        return
    batch = np.random.default_rng(0).random([int(size) for size in shape[0].split(",")], dtype=np.float32)
    execute = runtime.load(Path(file), batch)
    for _ in range(3):  # runtimes optimise in their first executions
        execute()
    print("ready", flush=True)
    for line in sys.stdin:
        count, began = 0, perf_counter()
        end = began + float(line)
        while perf_counter() < end:
            execute()
            count += 1
        print(count / (perf_counter() - began), flush=True)


if __name__ == "__main__":
    main()
