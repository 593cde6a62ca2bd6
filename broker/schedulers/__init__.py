"""A scheduler holds the requests of one model version and decides which run together. Pure: time is an argument."""

from typing import Protocol

from broker.request import Request
from broker.schedulers.company import company, is_gathered
from broker.schedulers.default import DefaultScheduler
from broker.schedulers.dynamic import DynamicScheduler
from broker.schedulers.gathering import GatheringScheduler
from broker.schedulers.sequence import SequenceScheduler
from configs.description import DynamicBatching, ModelDescription

ALONE = DynamicBatching((1,))
"""Every request on its own, for tenants that share a model without dynamic batching."""


class Scheduler(Protocol):
    """Requests in, batches out."""

    def enqueue(self, request: Request) -> None:
        """Take a new request. Raises QueueFull, Rejected."""

    def readmit(self, request: Request) -> None:
        """Take a request that has waited under other settings: it is not refused, its timeout goes on running."""

    def requeue(self, request: Request) -> None:
        """Take back, before all others, a request whose worker died."""

    def next_batch(self, now: float, is_idle: bool) -> list[Request]:
        """The requests to run together now, [] when there are none or they should wait for company.

        `is_idle` tells whether an instance has nothing to do; else the batch would wait behind another one.
        """

    def deadline(self) -> float | None:
        """When `next_batch` will say something new without another request; None: never."""

    def expire(self, now: float) -> list[Request]:
        """Give up the requests that have waited longer than their policy allows."""

    def next_expiry(self) -> float | None:
        """When `expire` has something to do; None: never."""

    def remove(self, request: Request) -> bool:
        """Forget a queued request (cancelled); False when it is not queued."""

    def drain(self) -> list[Request]:
        """Give up all queued requests."""

    def __len__(self) -> int:
        """Queued requests."""


def make(description: ModelDescription) -> Scheduler:
    """The scheduler that a model's configuration asks for."""
    if description.sequence_batching is not None:
        return SequenceScheduler(description.sequence_batching, description.max_batch_size, company(description))
    batching, tenants = description.dynamic_batching, description.tenants
    if batching is None:
        return DefaultScheduler() if tenants is None else DynamicScheduler(ALONE, 1, tenants=tenants)
    scheduler = GatheringScheduler if is_gathered(description) else DynamicScheduler
    return scheduler(batching, max(1, description.max_batch_size), company(description), tenants)


__all__ = ["DefaultScheduler", "DynamicScheduler", "GatheringScheduler", "Scheduler", "SequenceScheduler", "make"]
