"""Requests under the rate limiter: instances execute one batch at a time, when it is their turn. Pure."""

from typing import Any

from broker import calls
from broker.models import Instance, Version
from broker.rate_limiter import RateLimiter
from broker.request import Request
from broker.requests import Requests


class LimitedRequests(Requests):
    """As `Requests`, where the rate limiter picks the instances."""

    def __init__(self, limiter: RateLimiter, *args: Any) -> None:
        """`args` are those of `Requests`."""
        super().__init__(*args)
        self._limiter = limiter

    def dispatch(self, version: Version, now: float) -> None:
        """As `Requests.dispatch`; then whoever waits may take what has come free."""
        super().dispatch(version, now)
        self._serve_waiting(now)

    def _cancel(self, request: Request, now: float) -> None:
        """As `Requests._cancel`; what the request has waited for is free for others."""
        super()._cancel(request, now)
        self._serve_waiting(now)

    def tick(self, now: float) -> None:
        """As `Requests.tick`; requests may have gone in whose favour others wait."""
        super().tick(now)
        self._serve_waiting(now)

    def _serve_waiting(self, now: float) -> None:
        for version in self._limiter.waiting():
            super().dispatch(version, now)

    def _pick(self, version: Version, now: float) -> Instance | None:
        instance = self._limiter.pick(version, now)
        if instance is not None and version.sequences is not None:
            version.sequences.choose(instance)
        return instance

    def _deadlock(self, call: Request, is_patient: bool) -> list[str]:
        return calls.deadlock(call, is_patient, self._limiter)

    def _execute(self, instance: Instance, batch: list[Request], now: float) -> None:
        super()._execute(instance, batch, now)
        self._limiter.took(instance)
