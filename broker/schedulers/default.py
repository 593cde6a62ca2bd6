"""The default scheduler: first come, first served, every request on its own."""

from collections import OrderedDict

from broker.request import Request


class DefaultScheduler:
    """A plain queue."""

    def __init__(self) -> None:
        """Empty."""
        self._queue: OrderedDict[Request, None] = OrderedDict()  # anybody may leave it, wherever it stands

    def enqueue(self, request: Request) -> None:
        """See `Scheduler`."""
        self._queue[request] = None

    def readmit(self, request: Request) -> None:
        """See `Scheduler`."""
        self._queue[request] = None

    def requeue(self, request: Request) -> None:
        """See `Scheduler`."""
        self._queue[request] = None
        self._queue.move_to_end(request, last=False)

    def next_batch(self, now: float, is_idle: bool) -> list[Request]:
        """See `Scheduler`: the oldest request."""
        return [self._queue.popitem(last=False)[0]] if self._queue else []

    def expire(self, now: float) -> list[Request]:
        """See `Scheduler`: nothing times out."""
        return []

    def next_expiry(self) -> float | None:
        """See `Scheduler`: nothing times out."""
        return None

    def deadline(self) -> float | None:
        """See `Scheduler`: nothing ever waits for company."""
        return None

    def remove(self, request: Request) -> bool:
        """See `Scheduler`."""
        if request in self._queue:
            del self._queue[request]
            return True
        return False

    def drain(self) -> list[Request]:
        """See `Scheduler`."""
        requests = list(self._queue)
        self._queue.clear()
        return requests

    def __len__(self) -> int:
        """See `Scheduler`."""
        return len(self._queue)
