"""Load from many clients at once, in which every answer is compared with its own question."""

import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import NamedTuple

import numpy as np

from tests.support.clients import Array, Client, is_cut
from tests.support.server import Server

PAUSE_SECONDS = 0.05
"""Between an error and the next request."""


class Outcome(NamedTuple):
    """One request: when it was sent and answered (monotonic clock), and what went wrong, if anything did.

    `fresh_at` is a moment at which its connection was not open yet or still sound, the latest one known; `is_cut`
    says that the error is the connection's, and no answer of the server.
    """

    protocol: str
    began: float
    ended: float
    fresh_at: float
    error: str
    is_cut: bool


Ask = Callable[[Client, int, int], str]
"""Sends the n-th request of a client (`client, client number, n`); what is wrong with the answer, else empty."""


def echo(model: str, size: int = 16) -> Ask:
    """Requests of `size` floats to a model that answers them as OUT; each is like no other."""

    def ask(client: Client, number: int, count: int) -> str:
        question: Array = np.full(size, number, np.float32)
        question[:2] = number, count
        answer = client.infer(model, {"IN": question})["OUT"]
        return "" if np.array_equal(answer, question) else f"wrong answer {answer!r}"

    return ask


class Load:
    """Use as a context manager: clients ask one question after another until the block ends.

    After an error a client continues with a new connection.
    """

    def __init__(self, server: Server, asks: Sequence[tuple[str, Ask]]) -> None:
        """One client for each (protocol, ask)."""
        self._server = server
        self._stop = threading.Event()
        self.by_client: list[list[Outcome]] = [[] for _ in asks]
        self._threads = [
            threading.Thread(target=self._run, args=(number, protocol, ask), name=f"load-{number}", daemon=True)
            for number, (protocol, ask) in enumerate(asks)
        ]

    @property
    def outcomes(self) -> list[Outcome]:
        """Everything so far."""
        return [outcome for each in self.by_client for outcome in list(each)]

    @property
    def failures(self) -> list[Outcome]:
        """What went wrong so far."""
        return [outcome for outcome in self.outcomes if outcome.error]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(90)
        if error is None:
            stuck = [thread.name for thread in self._threads if thread.is_alive()]
            assert not stuck, f"requests without an answer: {stuck}"

    def _run(self, number: int, protocol: str, ask: Ask) -> None:
        count, client, fresh_at = 0, None, 0.0
        while not self._stop.is_set():
            if client is None:
                fresh_at, client = time.monotonic(), Client(protocol, self._server)
            count += 1
            began, was_cut = time.monotonic(), False
            try:
                error = ask(client, number, count)
            except Exception as problem:
                error, was_cut = f"{type(problem).__name__}: {problem}", is_cut(problem)
            self.by_client[number].append(Outcome(protocol, began, time.monotonic(), fresh_at, error, was_cut))
            if error:
                client.close()
                client = None
                self._stop.wait(PAUSE_SECONDS)
            else:
                fresh_at = began
        if client is not None:
            client.close()
