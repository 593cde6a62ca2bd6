"""A closed loop of requests from one thread: how many are answered in a window, how fast, at what CPU cost."""

import math
import select
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

from bench import cpu
from bench.connection import Connection

PATIENCE = 60.0  # seconds without what has to come


@dataclass(frozen=True)
class Window:
    """What was seen in one window: requests per second, latencies in seconds, server CPU seconds per request."""

    throughput: float
    p50: float
    p99: float
    cpu: float


def measure(connections: Sequence[Connection], server_pid: int, warm_up: float, seconds: float) -> Window:
    """Keeps all connections busy, looks for `seconds` after `warm_up` seconds, and waits for the last answers.

    A window is longer where the answers take so long that not each request in flight had one.
    """
    loop = Loop(connections)
    loop.run(perf_counter() + warm_up)
    cpu_before, start = cpu.snapshot(server_pid), perf_counter()
    latencies = loop.run(start + seconds, at_least=loop.in_flight)
    cpu_after, end = cpu.snapshot(server_pid), perf_counter()
    loop.drain()
    return summarise(latencies, end - start, cpu.seconds_between(cpu_before, cpu_after))


def summarise(latencies: list[float], seconds: float, cpu_seconds: float) -> Window:
    """The numbers of a window in which that was seen; there is at least one latency."""
    ordered = sorted(latencies)
    return Window(
        throughput=len(ordered) / seconds,
        p50=percentile(ordered, 0.50),
        p99=percentile(ordered, 0.99),
        cpu=cpu_seconds / len(ordered),
    )


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed; `ordered` is ascending."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


class Loop:
    """Connections under one epoll."""

    def __init__(self, connections: Sequence[Connection]) -> None:
        self._connections = {connection.socket.fileno(): connection for connection in connections}
        self._poller = select.epoll()
        self._interest: dict[int, int] = {}
        for fileno, connection in self._connections.items():
            connection.start()
            self._interest[fileno] = interest(connection)
            self._poller.register(fileno, self._interest[fileno])

    @property
    def in_flight(self) -> int:
        """Requests that are not answered yet."""
        return sum(connection.in_flight for connection in self._connections.values())

    def run(self, until: float, at_least: int = 0) -> list[float]:
        """Sends and receives until that time and until so many answers have come; the latencies of all that did.

        RuntimeError when the answers stay out.
        """
        latencies: list[float] = []
        while (left := until - perf_counter()) > 0 or len(latencies) < at_least:
            if left < -PATIENCE:
                raise RuntimeError(f"{len(latencies)} answers within {PATIENCE:.0f} s, {at_least} were due")
            for fileno, events in self._poller.poll(left if left > 0 else 1):
                connection = self._connections[fileno]
                if events & select.EPOLLOUT:
                    connection.write()
                if events & ~select.EPOLLOUT:
                    latencies += connection.read()
                if (wanted := interest(connection)) != self._interest[fileno]:
                    self._interest[fileno] = wanted
                    self._poller.modify(fileno, wanted)
        return latencies

    def drain(self) -> None:
        """Waits for what is in flight and closes the connections."""
        for connection in self._connections.values():
            connection.is_stopping = True
        self.run(perf_counter(), at_least=self.in_flight)
        for connection in self._connections.values():
            connection.socket.close()
        self._poller.close()


def interest(connection: Connection) -> int:
    """The events to wait for."""
    return select.EPOLLIN | (select.EPOLLOUT if connection.wants_to_write else 0)
