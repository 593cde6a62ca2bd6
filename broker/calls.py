"""Requests that models make of other models: which of them can never be executed. Pure.

An execution that has called another model does not return before the call is answered. When the instances that could
answer it all wait, directly or through other calls, for that same call, nothing would ever move again.
"""

from broker.models import COMING, Instance, InstanceState
from broker.rate_limiter import RateLimiter
from broker.request import Request

_LEAVING = {InstanceState.DRAINING, InstanceState.FAILED}
"""Instances in these states take nothing new; those in others will, or do."""


def deadlock(call: Request, is_patient: bool = True, limiter: RateLimiter | None = None) -> list[str]:
    """The models that wait for each other, from the called one on until it comes again; `[]`: the call can go on.

    `is_patient`: instances that wait to be started again will be ready, as those that are starting or loading will.
    `limiter` knows who has the resources that others wait for.
    """
    hopeless = _LEAVING if is_patient else {*InstanceState} - {InstanceState.READY, *COMING}
    return _Search(hopeless, limiter).call(call)


class _Search:
    """Follows the calls that block each other. What is met again on the way is blocked."""

    def __init__(self, hopeless: set[InstanceState], limiter: RateLimiter | None) -> None:
        self._hopeless = hopeless
        self._limiter = limiter
        self._way: list[Instance] = []
        self._free: set[int] = set()

    def call(self, call: Request) -> list[str]:
        """Blocked when everything that could execute it is; the call is at one instance, or is for any."""
        chains = []
        sequences = call.version.sequences
        worker = call.worker or (sequences.place(call) if sequences is not None else "")
        for instance in call.version.instances:
            if instance.peer == worker if worker else instance.state not in self._hopeless:
                chain = self._instance(instance) or self._resources(instance)
                if not chain:
                    return []
                chains.append(chain)
        return min(chains, key=len, default=[])

    def _instance(self, instance: Instance) -> list[str]:
        """Blocked when a call of what it executes is. (What waits behind that waits for the same.)"""
        if id(instance) in self._free or not instance.attempts:
            return []
        name = instance.version.model
        if instance in self._way:
            return [name]
        attempt = min(instance.attempts)
        self._way.append(instance)
        try:
            for call in instance.calls:
                chain = self.call(call) if call.message.attempt == attempt else []
                if chain:
                    return [name, *chain]
        finally:
            self._way.pop()
        self._free.add(id(instance))
        return []

    def _resources(self, instance: Instance) -> list[str]:
        """Blocked when those that are blocked themselves have what it needs to begin."""
        if self._limiter is None or instance.attempts:
            return []
        name = instance.version.model
        if instance in self._way:
            return [name]
        self._way.append(instance)
        try:
            chains = {holder: self._instance(holder) for holder in self._limiter.executing()}
        finally:
            self._way.pop()
        blocked = [holder for holder, chain in chains.items() if chain]
        if not blocked or self._limiter.can_join(instance, blocked):
            return []
        return [name, *min([chains[holder] for holder in blocked], key=len)]
