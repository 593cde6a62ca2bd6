"""Which regions of shared memory exist, who owns them, and who may still open them. Pure."""

from collections.abc import Iterable

from broker.effects import Effect, Send, Unlink
from broker.messages import PeerGone, RegionClosed, RegionOpened


class Regions:
    """The books about the arenas' regions.

    Frontends read what workers own and the other way round. A dead worker's regions keep their names until every
    frontend has said that it will not open them any more, since responses that refer to them may be under way.
    """

    def __init__(self) -> None:
        """No regions."""
        self._owners: dict[str, str] = {}  # region -> owner
        self._awaited: dict[str, set[str]] = {}  # region of a dead worker -> frontends that may still open it

    def opened(self, owner: str, name: str, readers: Iterable[str]) -> list[Effect]:
        """A peer has made a region."""
        self._owners[name] = owner
        return [Send(reader, RegionOpened(name)) for reader in readers]

    def closed(self, owner: str, name: str, readers: Iterable[str]) -> list[Effect]:
        """A peer has given a region up (and unlinked it)."""
        if self._owners.get(name) != owner:
            return []
        del self._owners[name]
        return [Send(reader, RegionClosed(name)) for reader in readers]

    def joined(self, reader: str, owners: Iterable[str]) -> list[Effect]:
        """A new reader hears of the regions that these owners have already."""
        known = set(owners)
        return [Send(reader, RegionOpened(name)) for name, owner in self._owners.items() if owner in known]

    def worker_lost(self, peer: str, frontends: Iterable[str]) -> list[Effect]:
        """A worker is dead."""
        readers = set(frontends)
        effects: list[Effect] = []
        for name in self._drop(peer):
            effects += [Send(reader, RegionClosed(name)) for reader in sorted(readers)]
            if readers:
                self._awaited[name] = set(readers)
            else:
                effects.append(Unlink(name))
        return effects

    def frontend_lost(self, peer: str, workers: Iterable[str]) -> list[Effect]:
        """A frontend is dead: nobody waits for what its regions hold, and it reads nothing any more."""
        effects: list[Effect] = []
        names = self._drop(peer)
        for worker in workers:
            effects += [Send(worker, RegionClosed(name)) for name in names]
            effects.append(Send(worker, PeerGone(peer)))
        effects += [Unlink(name) for name in names]
        for name in list(self._awaited):
            effects += self.dropped(peer, name)
        return effects

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
        return name in self._awaited

    def _drop(self, peer: str) -> list[str]:
        names = [name for name, owner in self._owners.items() if owner == peer]
        for name in names:
            del self._owners[name]
        return names
