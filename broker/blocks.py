"""Output blocks that several readers need: the steps of ensembles, and who gets their outputs. Pure.

A worker keeps such a block for the broker, which counts who still needs it. When nobody does, or only one reader that
can mark it done by itself, the worker is told.
"""

from collections.abc import Iterable

from broker.effects import Effect, Send
from broker.messages import PassOn
from broker.regions import Regions
from shm.ref import TensorRef

_Key = tuple[str, int, int]


class Blocks:
    """How many need each block that a worker keeps."""

    def __init__(self, regions: Regions, out: list[Effect]) -> None:
        """`out` collects the effects."""
        self._regions = regions
        self._out = out
        self._uses: dict[_Key, int] = {}

    def hold(self, ref: TensorRef, uses: int = 1) -> None:
        """So many more need the block of an output; one that nobody needs goes back at once."""
        if ref.generation:
            key = _key(ref)
            self._uses[key] = self._uses.get(key, 0) + uses
            self._settle(key)

    def share(self, ref: TensorRef, uses: int) -> None:
        """So many more need the block of an input, if it is one that is kept for anybody."""
        key = _key(ref)
        if key in self._uses:
            self._uses[key] += uses

    def drop(self, ref: TensorRef) -> None:
        """One of those that needed it does no more. Nothing for tensors that lie elsewhere."""
        key = _key(ref)
        if key in self._uses:
            self._uses[key] -= 1
            self._settle(key)

    def pass_on(self, ref: TensorRef, reader: str) -> None:
        """The last that needs it is this peer, which reads it and marks it done."""
        key = _key(ref)
        if self._uses.pop(key, 0):
            self._tell(key, reader)

    def announce(self, refs: Iterable[TensorRef], reader: str) -> None:
        """A worker is about to read these: it has to know the regions of other workers."""
        for ref in refs:
            if _key(ref) in self._uses:
                self._out += self._regions.lend(ref.region, reader)

    @property
    def regions(self) -> set[str]:
        """Where blocks lie that are needed."""
        return {region for region, _, _ in self._uses}

    def __len__(self) -> int:
        """Blocks that are needed."""
        return len(self._uses)

    def _settle(self, key: _Key) -> None:
        if not self._uses[key]:
            del self._uses[key]
            self._tell(key, "")

    def _tell(self, key: _Key, reader: str) -> None:
        owner = self._regions.owner(key[0])
        if owner is not None:  # else it is dead, and its regions go as a whole
            self._out.append(Send(owner, PassOn(*key, reader)))


def _key(ref: TensorRef) -> _Key:
    return ref.region, ref.slot, ref.generation
