"""Models that are in memory only while they are needed: requests wait while theirs is loaded, idle ones leave. Pure.

A version that sleeps (`count` 0) stays what it is, but has no instances. What wants one of these is in
`Requests.wanted`: queued requests, and those held here, which are looked at only when the model is there and has said
what it takes. `residency` decides who is loaded and who leaves.
"""

from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from broker import answers, residency
from broker.census import Census
from broker.fleet import Fleet
from broker.messages import ErrorCode, Infer, MemorySampled, ProtocolError
from broker.models import Instance, Version
from broker.requests import Requests
from broker.validation import Rejected
from configs.server import ServerConfig

RETRY_SECONDS = 5.0
"""A model that has failed to load is tried again at the first request after so long."""
TURN_SECONDS = 0.05
"""While somebody waits, who is idle is looked at so often."""


class Held(NamedTuple):
    """A request that waits for its model; `caller` as in `Requests.accept`."""

    peer: str
    infer: Infer
    caller: Instance | None


@dataclass(slots=True)
class Record:
    """What has happened to one version."""

    loads: int = 0
    cold_requests: int = 0
    unloads: dict[str, int] = field(default_factory=dict)


class OnDemand:
    """Carries out what `residency` decides."""

    def __init__(self, fleet: Fleet, requests: Requests, config: ServerConfig, epoch_offset: float) -> None:
        """`epoch_offset` as in `Core`."""
        self._fleet = fleet
        self._models = fleet.models
        self._requests = requests
        self._is_mode = config.model_control_mode == "on-demand"
        self._held: dict[tuple[str, int], Held] = {}
        self._retries: dict[str, float] = {}  # model that has failed -> when it was tried again
        self._next_turn = 0.0
        self.census = Census(fleet, config, epoch_offset)
        self.records: dict[Version, Record] = {}

    # ------------------------------------------------------------------------------------------- requests

    def hold(self, peer: str, infer: Infer, caller: Instance | None, now: float) -> bool:
        """Keep a request until its model is there; False when that is for others to judge. Raises ProtocolError."""
        version = self._find(infer, now)
        is_there = version is not None and not version.is_cold and not version.description.steps
        if is_there or (self._requests.is_stopping and caller is None):
            return False
        if version is None:
            error = self._failure(infer)
            if error:
                self._requests.refuse(peer, infer, ErrorCode.UNAVAILABLE, error, now)
            return bool(error)
        missing = self._missing(version)
        if not missing:
            return False
        key = (peer, infer.request)
        if key in self._held:
            raise ProtocolError(f"request number {infer.request} is in use")
        if not 0 <= infer.received <= now:
            return False
        self._held[key] = Held(peer, infer, caller)
        self._record(version).cold_requests += 1
        self._next_turn = 0.0
        self._requests.wanted |= dict.fromkeys(missing)
        return True

    def cancel(self, peer: str, number: int, now: float) -> None:
        """The client of a request is gone, which may be held here."""
        held = self._held.pop((peer, number), None)
        if held is not None:
            self._requests.refuse(*held[:2], ErrorCode.CANCELLED, "", now)

    def stop(self, now: float) -> None:
        """The server ends: what clients have asked is refused, what models have called is still executed."""
        for key in [key for key, held in self._held.items() if held.caller is None]:
            self._accept(key, now)

    @property
    def is_holding(self) -> bool:
        """Whether requests wait here."""
        return bool(self._held)

    def peer_lost(self, peer: str) -> None:
        """Nobody waits for the answers to its requests any more."""
        for key in [key for key in self._held if key[0] == peer]:
            del self._held[key]

    def _find(self, infer: Infer, now: float) -> Version | None:
        model = self._models.get(infer.model)
        if self._is_mode and model is not None and model.failures:
            self._retry(infer.model, now)
        return self._look_up(infer.model, infer.version)

    def _look_up(self, name: str, number: int) -> Version | None:
        try:
            return answers.look_up(self._models, name, number)
        except Rejected:
            return None

    def _retry(self, name: str, now: float) -> None:
        """Let a model that has failed to load, or an ensemble of such, be tried again; but not all the time."""
        if now < self._retries.get(name, 0.0):
            return
        self._retries[name] = now + RETRY_SECONDS
        model = self._models.get(name)
        description = model.description if model is not None else None
        for step in description.steps if description is not None else ():
            self._retry(step.model, now)
        if model is not None and description is not None and model.failures:
            self._fleet.apply(description, now)

    def _missing(self, version: Version) -> list[Version]:
        """What has to be there before a request can be looked at: the version, and an ensemble's unread models."""
        found = {version: None} if version.is_cold else {}
        way, seen = [version], {version}
        while way:
            for step in way.pop().description.steps:
                part = self._look_up(step.model, step.version)
                if part is not None and part not in seen:
                    seen.add(part)
                    way.append(part)
                    found |= {part: None} if part.is_unread else {}
        return list(found)

    def _release(self, now: float) -> None:
        """Let the requests go on whose models are there, or have failed; see what the others want now."""
        queued = [version for version in self._requests.wanted if version.is_cold and version.scheduler]
        self._requests.wanted = dict.fromkeys(queued)
        for key, held in list(self._held.items()):
            try:
                version = answers.look_up(self._models, held.infer.model, held.infer.version)
            except Rejected as error:
                self._refuse(key, error.code, self._failure(held.infer) or str(error), now)
                continue
            missing = self._missing(version)
            if missing:
                self._requests.wanted |= dict.fromkeys(missing)
            else:
                self._accept(key, now)
        since = self.census.awaited
        self.census.awaited = {version: since.get(version, now) for version in self._requests.wanted}

    def _accept(self, key: tuple[str, int], now: float) -> None:
        held = self._held.pop(key)
        with suppress(ProtocolError):  # its number is in use: whoever sent it does not keep to the rules
            self._requests.accept(held.peer, held.infer, now, held.caller)

    def _failure(self, infer: Infer) -> str:
        model = self._models.get(infer.model)
        reasons = model.failures if self._is_mode and model is not None else {}
        lines = [f"version {number} is at UNAVAILABLE state: {reason}" for number, reason in sorted(reasons.items())]
        return f"load failed for model '{infer.model}': {'; '.join(lines)}" if lines else ""

    def _refuse(self, key: tuple[str, int], code: ErrorCode, error: str, now: float) -> None:
        held = self._held.pop(key)
        self._requests.refuse(held.peer, held.infer, ErrorCode.UNAVAILABLE if error else code, error, now)

    # ------------------------------------------------------------------------------------------- decisions

    def settle(self, now: float) -> None:
        """See to those that wait; called after every event while there are some."""
        if now < self._next_turn:
            return
        self._release(now)
        self._next_turn = now + TURN_SECONDS
        if self._requests.wanted:
            self._decide(now)

    def hurry(self) -> None:
        """Something has changed that those who wait may have waited for."""
        self._next_turn = 0.0

    def tick(self, now: float) -> None:
        """About once a second: who has been idle for long, who has grown."""
        there = {version for model in self._models.values() for version in model.all_versions()}
        self.records = {version: record for version, record in self.records.items() if version in there}
        self._fleet.cold &= there
        if any(self.census.may_sleep(version) for version in there):
            self._release(now)
            self._decide(now)

    def sampled(self, message: MemorySampled, now: float) -> None:
        """The processes' memory has been measured."""
        self.census.sampled(message)
        if self.census.has_budget:
            self._release(now)
            self._decide(now)

    def next_deadline(self) -> float | None:
        """When `settle` has something to do."""
        return self._next_turn if self._requests.wanted else None

    def _decide(self, now: float) -> None:
        decisions = residency.decide(self.census.tenants(), self.census.budget(), now)
        for version, text in decisions.refuse:
            self._give_up(version, text, now)
        for version, why in decisions.sleep:
            self._sleep(version, why, now)
        for version in decisions.wake:
            self._wake(version, now)

    def _wake(self, version: Version, now: float) -> None:
        self._record(version).loads += 1
        self._fleet.set_count(version, version.first_count, now)

    def _sleep(self, version: Version, why: str, now: float) -> None:
        record = self._record(version)
        record.unloads[why] = record.unloads.get(why, 0) + 1
        self._fleet.set_count(version, 0, now)

    def _give_up(self, version: Version, text: str, now: float) -> None:
        """Refuse all that waits for a version."""
        error = f"model '{version.model}' version {version.number} cannot be loaded: {text}"
        self._requests.give_up(version, error, now)
        for key, held in list(self._held.items()):
            wanted = self._look_up(held.infer.model, held.infer.version)
            if wanted is not None and version in self._missing(wanted):
                self._refuse(key, ErrorCode.UNAVAILABLE, error, now)

    def _record(self, version: Version) -> Record:
        return self.records.setdefault(version, Record())
