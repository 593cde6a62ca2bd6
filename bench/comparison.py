"""Two servers side by side: the same cases, asked in turn in short windows, in one table."""

import argparse
import gc
import os
import platform
import signal
import statistics
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bench import servers
from bench.connection import Connection
from bench.load import Window, measure
from bench.servers import Server


@dataclass(frozen=True)
class Case(ABC):
    """One row of the table: what is asked (`payload`, in ten letters), and how many requests are in flight."""

    protocol: str
    payload: str
    concurrency: int

    @abstractmethod
    def connections(self, server: Server) -> list[Connection]:
        """Connections that together keep `concurrency` requests in flight."""


@dataclass(frozen=True)
class Plan:
    """How often, and how many seconds, each server is looked at in each row."""

    rounds: int
    warm_up: float
    seconds: float


FULL = Plan(rounds=5, warm_up=0.5, seconds=2.0)
QUICK = Plan(rounds=3, warm_up=0.2, seconds=0.5)


def compare(case: Case, plan: Plan, first: Server, second: Server) -> tuple[list[Window], list[Window]]:
    """The windows of both servers, taken in turn: what disturbs the machine for a while disturbs both."""
    windows: tuple[list[Window], list[Window]] = ([], [])
    for _ in range(plan.rounds):
        for server, seen in zip((first, second), windows, strict=True):
            seen.append(measure(case.connections(server), server.pid, plan.warm_up, plan.seconds))
    return windows


def median(windows: Sequence[Window]) -> Window:
    """The median of each number by itself."""
    return Window(
        throughput=statistics.median(window.throughput for window in windows),
        p50=statistics.median(window.p50 for window in windows),
        p99=statistics.median(window.p99 for window in windows),
        cpu=statistics.median(window.cpu for window in windows),
    )


def median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median over the rounds of ours / theirs."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def heading(first: str, second: str) -> str:
    """Two lines over the table."""
    columns = f"{'req/s':>9}{'p50 ms':>9}{'p99 ms':>9}{'CPU us':>9}"
    width = len(columns)
    return (
        f"{'':25}|{first:^{width}} |{second:^{width}} | {second} / {first}\n"
        f"{'protocol  payload':21}{'c':>3} |{columns} |{columns} |{'req/s':>7}{'p50':>7}{'CPU':>7}"
    )


def row(case: Case, theirs: Sequence[Window], ours: Sequence[Window]) -> str:
    """One line of the table."""
    sides = [
        f"{w.throughput:9.0f}{w.p50 * 1e3:9.2f}{w.p99 * 1e3:9.2f}{w.cpu * 1e6:9.0f}"
        for w in (median(theirs), median(ours))
    ]
    throughput = median_ratio([w.throughput for w in ours], [w.throughput for w in theirs])
    p50 = median_ratio([w.p50 for w in ours], [w.p50 for w in theirs])
    cpu = median_ratio([w.cpu for w in ours], [w.cpu for w in theirs])
    label = f"{case.protocol:10}{case.payload:10}{case.concurrency:4}"
    return f"{label} |{sides[0]} |{sides[1]} |{throughput:7.2f}{p50:7.2f}{cpu:7.2f}"


def machine() -> str:
    """What the numbers were taken on."""
    software = f"Linux {platform.release()}, Python {platform.python_version()}"
    return f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, {software}"


def run(description: str | None, repository: Path, cases: Sequence[Case], check: Callable[[Server], None]) -> None:
    """Read the command line, start both servers, `check` them, and print the table row by row as it is measured."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter windows: a first look")
    parser.add_argument(
        "--noise", action="store_true", help="Triton against itself: how far ratios stray from 1 by chance"
    )
    arguments = parser.parse_args()
    plan = QUICK if arguments.quick else FULL
    other = servers.real_triton if arguments.noise else servers.tidepool
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, so that no server is left behind
    gc.disable()  # a collection in the client would be counted as the server's latency
    with servers.real_triton(repository) as theirs, other(repository) as ours:
        for server in (theirs, ours):
            check(server)
        print(f"{machine()}; medians of {plan.rounds} windows of {plan.seconds} s")
        print(heading(theirs.name, ours.name))
        for case in cases:
            print(row(case, *compare(case, plan, theirs, ours)), flush=True)
