"""A queue that tenants share fairly: each gets its weight's part of the executions while all have work. Pure.

Weighted fair queueing by virtual time (self-clocked): a request's tag is when it would be done if its tenant had its
part of the model to itself, and the smallest tag is next. A tenant that had nothing to do starts from now: it has saved
up nothing.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator

from broker.request import Request
from configs.description import Tenants


class _Tenant:
    """One tenant that has requests here. `done` is the tag of its last one."""

    def __init__(self, weight: float) -> None:
        self.weight = weight
        self.done = 0.0
        self.queued = 0


class FairQueue:
    """Requests in the order of their tags; the methods that a deque has, as far as they are needed."""

    def __init__(self, settings: Tenants) -> None:
        """Empty."""
        self._settings = settings
        self._tenants: dict[str, _Tenant] = {}
        self._order: list[tuple[float, int, Request]] = []
        self._places: dict[Request, tuple[float, int]] = {}
        self._time = 0.0  # the largest tag of a request that was taken
        self._number = 0

    def append(self, request: Request) -> None:
        """Take a request: it costs as much as it has items."""
        name = self._name(request)
        tenant = self._tenants.get(name)
        if tenant is None:
            tenant = self._tenants[name] = _Tenant(self._settings.weights.get(name, 1.0))
        tenant.done = max(tenant.done, self._time) + request.batch / tenant.weight
        tenant.queued += 1
        self._number += 1
        self._places[request] = (tenant.done, self._number)
        insort(self._order, (tenant.done, self._number, request))

    def popleft(self) -> Request:
        """Take the request that is next."""
        request = self._order[0][2]
        self.take(request)
        return request

    def take(self, request: Request) -> None:
        """Take a request that is here, in its turn or to run with one that is next."""
        self._time = max(self._time, self._places[request][0])
        self.remove(request)

    def remove(self, request: Request) -> None:
        """Forget a request that is here: it costs nothing."""
        tag, number = self._places[request]
        del self._order[bisect_left(self._order, (tag, number))]
        self._forget(request)

    def queued(self, request: Request) -> int:
        """How many requests of this one's tenant are here."""
        tenant = self._tenants.get(self._name(request))
        return 0 if tenant is None else tenant.queued

    def _forget(self, request: Request) -> None:
        """It is gone. A tenant without requests is not remembered: what it would have to pay for has passed."""
        del self._places[request]
        if not self._order:
            self._time = 0.0
        name = self._name(request)
        self._tenants[name].queued -= 1
        if not self._tenants[name].queued:
            del self._tenants[name]

    def _name(self, request: Request) -> str:
        return str(request.parameter(self._settings.key) or "")

    def __contains__(self, request: object) -> bool:
        """Whether it is here."""
        return request in self._places

    def __iter__(self) -> Iterator[Request]:
        """In the order of `popleft`."""
        return (request for _, _, request in self._order)

    def __len__(self) -> int:
        """Requests of all tenants."""
        return len(self._order)
