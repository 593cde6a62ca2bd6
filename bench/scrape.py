"""Does a scrape of the metrics page each second cost inference anything?

The p99 of small HTTP requests in windows with scrapes and without, in turn.
"""

import contextlib
import gc
import multiprocessing
import signal
import statistics
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from time import perf_counter

from bench import servers
from bench.comparison import Plan, machine
from bench.load import PATIENCE, Window, measure
from bench.serving import REPOSITORY, PayloadCase, check_answers

CASE = PayloadCase("HTTP", "16 floats", concurrency=32)
PLAN = Plan(rounds=5, warm_up=1.0, seconds=10.0)
PERIOD = 1.0  # seconds from one scrape to the next


def scrape(url: str, pipe: Connection) -> None:
    """Reads the page now and once a period, and sends how many seconds each took, until the other end is closed."""
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            began = perf_counter()
            with urllib.request.urlopen(url, timeout=PATIENCE) as page:
                if b"nv_inference_count" not in page.read():
                    raise SystemExit(f"{url} is no metrics page")
            pipe.send(perf_counter() - began)
            if pipe.poll(max(0.0, began + PERIOD - perf_counter())):
                pipe.recv()


@contextlib.contextmanager
def scraping(url: str) -> Iterator[list[float]]:
    """Scrapes from a process of its own, so that the load generator is not disturbed.

    The list has the seconds that each scrape took, once the context is left. RuntimeError when the scrapes fail.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=scrape, args=(url, theirs))
    process.start()
    theirs.close()
    took: list[float] = []
    try:
        took.append(received(ours))
        yield took
        while ours.poll():
            took.append(received(ours))
    finally:
        ours.close()
        process.join(PATIENCE)


def received(pipe: Connection) -> float:
    """The next scrape's seconds; RuntimeError when there is none."""
    try:
        if pipe.poll(PATIENCE):
            return float(pipe.recv())
    except EOFError:
        pass
    raise RuntimeError("the scrapes failed")


def compare(server: servers.Server) -> tuple[list[Window], list[Window], list[float]]:
    """The windows without scrapes, those with, and the seconds that each scrape took."""
    without: list[Window] = []
    scraped: list[Window] = []
    took: list[float] = []
    url = "http://{}:{}/metrics".format(*server.metrics)
    for _ in range(PLAN.rounds):
        without.append(measure(CASE.connections(server), server.pid, PLAN.warm_up, PLAN.seconds))
        with scraping(url) as seconds:
            scraped.append(measure(CASE.connections(server), server.pid, PLAN.warm_up, PLAN.seconds))
        took += seconds
    return without, scraped, took


def table(without: Sequence[Window], scraped: Sequence[Window]) -> str:
    """Medians with the least and the most, and the same of the differences within each pair."""
    before, after = ([window.p99 for window in windows] for windows in (without, scraped))
    return "\n".join(
        (
            f"{'':22}{'p99 ms':>8}{'least':>8}{'most':>8}{'req/s':>8}",
            row("without scrapes", before) + f"{statistics.median(w.throughput for w in without):8.0f}",
            row("a scrape each second", after) + f"{statistics.median(w.throughput for w in scraped):8.0f}",
            row("difference in a pair", [b - a for a, b in zip(before, after, strict=True)], "+"),
        )
    )


def row(label: str, seconds: Sequence[float], sign: str = "") -> str:
    """Median, least and most in milliseconds."""
    numbers = (statistics.median(seconds), min(seconds), max(seconds))
    return f"{label:22}" + "".join(f"{number * 1e3:{sign}8.2f}" for number in numbers)


def main() -> None:
    """Prints the table."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # unwinds, so that no server is left behind
    gc.disable()  # a collection in the client would be counted as the server's latency
    with servers.tidepool(REPOSITORY) as server:
        check_answers(server)
        without, scraped, took = compare(server)
    load = f"{CASE.protocol}, {CASE.payload}, {CASE.concurrency} in flight"
    print(f"{machine()}; {load}; {PLAN.rounds} pairs of windows of {PLAN.seconds} s")
    print(table(without, scraped))
    print(f"{len(took)} scrapes, median {statistics.median(took) * 1e3:.1f} ms, longest {max(took) * 1e3:.1f} ms")


if __name__ == "__main__":
    main()
