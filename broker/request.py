"""A request as the core knows it, from its arrival to its final response."""

from typing import Any

import msgspec

from broker.messages import Infer, Response
from shm.ref import TensorRef


class Request(msgspec.Struct, eq=False):
    """One request that was accepted. `enqueued` is in seconds of the monotonic clock.

    `crashes` counts the deaths of workers that were executing it by their own fault, `kills` those that were killed
    from outside. A request that met a death runs alone (`is_solo`).
    """

    peer: str
    message: Infer
    version: Any  # models.Version
    inputs: tuple[TensorRef, ...]
    batch: int
    enqueued: float
    client_regions: tuple[int, ...] = ()  # that it reads or writes
    shape_key: tuple[Any, ...] | None = None  # what is equal within a batch, once somebody has asked
    worker: str = ""  # the peer that has it, as item `item` of `attempt`; "" while it is queued
    attempt: int = 0
    item: int = 0
    times: tuple[int, int, int, int] = (0, 0, 0, 0)  # of its execution, once that has returned
    responses: int = 0  # sent so far
    ended: float = 0.0
    trace: dict[str, Any] | None = None  # the beginning of its trace record
    crashes: int = 0
    kills: int = 0
    caller: Any = None  # models.Instance whose model has made the request
    step: Any = None  # runs.Step of an ensemble that it is
    has_called: bool = False  # its execution has called another model
    is_done: bool = False  # its final response has been decided
    is_cancelled: bool = False
    is_orphan: bool = False  # its frontend is dead: nobody waits for the response
    is_ordered: bool = False  # its response waits for those before it
    response: Response | None = None  # waiting for those before it

    def parameter(self, name: str) -> Any:
        """A parameter's value, None without; the name's case does not matter, for it may be that of a header."""
        found, name = None, name.lower()
        for key, value in self.message.parameters.items():
            if key.lower() == name:
                found = value
        return found

    @property
    def is_solo(self) -> bool:
        """Run it without batch-mates, who must not suffer again."""
        return bool(self.crashes or self.kills)
