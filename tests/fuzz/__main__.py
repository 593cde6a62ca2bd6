"""The long run by hand: `python -m tests.fuzz [--inputs 3000] [--seconds 300] [--seed N] [target ...]`.

Each target gets so many different inputs, or as many as there is time for. Prints what there was and what it said.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.fuzz import fabric, targets
from tests.fuzz.tally import Tally, table
from tests.fuzz.targets import Budget
from tests.fuzz.watch import Watch, fuzzed_server
from tests.support.server import Server

ON_A_SERVER: dict[str, Callable[[Server, Budget], Tally]] = {
    "http_documents": lambda server, budget: targets.http_documents(server.address("http"), budget),
    "http_framing": lambda server, budget: targets.http_framing(server.address("http"), budget),
    "grpc_messages": lambda server, budget: targets.grpc_messages(server.address("grpc"), budget),
    "grpc_frames": lambda server, budget: targets.grpc_frames(server.address("grpc"), budget),
    "fabric_sockets": fabric.sockets,
}
IN_THIS_PROCESS: dict[str, Callable[[Path, Budget], Tally]] = {
    "model_configurations": targets.model_configurations,
    "server_configurations": targets.server_configurations,
    "fabric_messages": fabric.messages,
}
REPLACES_PROCESSES = ("fabric_sockets",)


def main(arguments: list[str]) -> None:
    """Run the targets that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz every target for a long time.")
    parser.add_argument("--inputs", type=int, default=3000, help="different inputs for each target (3000)")
    parser.add_argument("--seconds", type=float, default=300.0, help="at most, for each target (300)")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of all chance; printed")
    parser.add_argument("targets", nargs="*", metavar="target", help=", ".join([*ON_A_SERVER, *IN_THIS_PROCESS]))
    given = parser.parse_args(arguments)
    budget = Budget(given.inputs, given.seconds, given.seed)
    chosen = given.targets or [*ON_A_SERVER, *IN_THIS_PROCESS]
    print(f"seed {budget.seed}", flush=True)
    tallies: list[Tally] = []
    with tempfile.TemporaryDirectory(prefix="fuzz-") as place, fuzzed_server(Path(place) / "server") as server:
        for name in chosen:
            began = time.monotonic()
            if name in ON_A_SERVER:
                with Watch(server, keeps_processes=name not in REPLACES_PROCESSES):
                    tallies.append(ON_A_SERVER[name](server, budget))
            else:
                directory = Path(place) / name
                directory.mkdir()
                tallies.append(IN_THIS_PROCESS[name](directory, budget))
            print(f"{name}: {tallies[-1].inputs} inputs in {time.monotonic() - began:.0f} s", flush=True)
    print(table(tallies))


if __name__ == "__main__":
    main(sys.argv[1:])
