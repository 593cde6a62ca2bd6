"""Which regions of shared memory exist, who owns them, and who may still open them. Pure."""

import re
from collections.abc import Collection, Iterable

from broker.effects import Effect, Send, Unlink
from broker.messages import PeerGone, ProtocolError, RegionClosed, RegionOpened

_NAME = re.compile(r"tidepool-[0-9a-z]+-([0-9a-z]+)-[0-9]+")
"""What `shm.region.name_for` makes: the owner's token is part of it."""


class Regions:
    """The books about the arenas' regions.

    Frontends read what workers own and the other way round; workers whose models call others read as frontends do, and
    are read by all workers. Other workers are told of a worker's region when they are about to read in it (`lend`). A
    dead worker's regions keep their names until every
    frontend has said that it will not open them any more, since responses that refer to them may be under way. The
    frontends are asked as soon as the core itself holds none back.
    """

    def __init__(self) -> None:
        """No regions."""
        self._owners: dict[str, str] = {}  # region -> owner
        self._orphans: list[str] = []  # regions of dead workers that the frontends still know
        self._awaited: dict[str, set[str]] = {}  # region of a dead worker -> frontends that may still open it
        self._lent: dict[str, set[str]] = {}  # region of a worker -> other workers that read in it, beyond the rule

    def opened(self, owner: str, name: str, readers: Iterable[str]) -> list[Effect]:
        """A peer has made a region. Raises ProtocolError for a name that is not its own."""
        match = _NAME.fullmatch(name)
        if match is None or match[1] != owner:
            raise ProtocolError(f"'{name}' is no name for a region of {owner}")
        self._owners[name] = owner
        return [Send(reader, RegionOpened(name)) for reader in readers]

    def closed(self, owner: str, name: str, readers: Iterable[str]) -> list[Effect]:
        """A peer has given a region up (and unlinked it)."""
        if self._owners.get(name) != owner:
            return []
        del self._owners[name]
        told = dict.fromkeys([*readers, *sorted(self._lent.pop(name, ()))])
        return [Send(reader, RegionClosed(name)) for reader in told]

    def lend(self, name: str, reader: str) -> list[Effect]:
        """A worker is about to read in a region of another one, which may be dead but is not given up yet."""
        told = self._lent.setdefault(name, set())
        if reader in told:
            return []
        told.add(reader)
        return [Send(reader, RegionOpened(name))]

    def owner(self, name: str) -> str | None:
        """The living peer that has made a region."""
        return self._owners.get(name)

    def joined(self, reader: str, owners: Iterable[str]) -> list[Effect]:
        """A new reader hears of the regions that these owners have already."""
        known = set(owners)
        return [Send(reader, RegionOpened(name)) for name, owner in self._owners.items() if owner in known]

    def worker_lost(self, peer: str) -> None:
        """A worker is dead."""
        for told in self._lent.values():
            told.discard(peer)
        self._orphans += self._drop(peer)

    def close_orphans(self, frontends: Collection[str], held: Collection[str]) -> list[Effect]:
        """Ask the frontends to drop the regions of dead workers, but for those in `held`."""
        effects: list[Effect] = []
        for name in [name for name in self._orphans if name not in held]:
            self._orphans.remove(name)
            told = self._lent.pop(name, set()).difference(frontends)
            effects += [Send(reader, RegionClosed(name)) for reader in (*sorted(frontends), *sorted(told))]
            if frontends:
                self._awaited[name] = set(frontends)
            else:
                effects.append(Unlink(name))
        return effects

    @property
    def has_orphans(self) -> bool:
        """Whether `close_orphans` may have something to do."""
        return bool(self._orphans)

    def frontend_lost(self, peer: str, workers: Iterable[str]) -> list[Effect]:
        """A frontend is dead: nobody waits for what its regions hold, and it reads nothing any more."""
        names = self._drop(peer)
        told = _tell_lost(peer, names, workers)
        return [*told, *[Unlink(name) for name in names], *self._await_no_more(peer)]

    def caller_lost(self, peer: str, workers: Iterable[str], callers: Collection[str]) -> list[Effect]:
        """A worker whose model called others is dead. `callers` may still read responses of its own, as frontends."""
        names = [name for name, owner in self._owners.items() if owner == peer]
        for name in [name for name in names if name in self._lent]:
            names.remove(name)  # it may hold what others are still to read: they are told with the frontends
            self._lent[name].update(workers)
        return [*_tell_lost(peer, names, workers, callers), *self._await_no_more(peer)]

    def _await_no_more(self, peer: str) -> list[Effect]:
        return [effect for name in list(self._awaited) for effect in self.dropped(peer, name)]

    def dropped(self, reader: str, name: str) -> list[Effect]:
        """A frontend will not open this region any more."""
        awaited = self._awaited.get(name)
        if awaited is None:
            return []
        awaited.discard(reader)
        if awaited:
            return []
        del self._awaited[name]
        return [Unlink(name)]

    def is_awaited(self, name: str) -> bool:
        """Whether the region of a dead worker may still be opened by a frontend."""
        return name in self._awaited or name in self._orphans

    def _drop(self, peer: str) -> list[str]:
        names = [name for name, owner in self._owners.items() if owner == peer]
        for name in names:
            del self._owners[name]
        return names


def _tell_lost(peer: str, names: list[str], workers: Iterable[str], readers: Collection[str] = ()) -> list[Effect]:
    """To each worker: whose inputs are gone (but for `readers`, who are told later), and who reads nothing any more."""
    effects: list[Effect] = []
    for worker in workers:
        if worker not in readers:
            effects += [Send(worker, RegionClosed(name)) for name in names]
        effects.append(Send(worker, PeerGone(peer)))
    return effects
