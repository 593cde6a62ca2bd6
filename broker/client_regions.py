"""The shared memory that clients register (Triton's system and CUDA shared memory extensions): names and uses. Pure.

Frontends and broker pass references; workers read and write the memory. A reference to client memory has the region
`@NAME` in a request and `@NUMBER` once it is resolved; a number is never used twice, so that a region registered
again under an old name is not mistaken for it.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from broker.effects import Effect, Send
from broker.messages import (
    ClientRegion,
    ClientRegionGone,
    ErrorCode,
    GetRegionStatus,
    Infer,
    ProtocolError,
    RegisterRegion,
    Target,
    UnregisterRegion,
)
from broker.validation import Rejected
from shm.ref import TensorRef

MARK = "@"
"""Begins the region of a reference to client memory."""

_WORDS = {"system": "system", "cuda": "CUDA"}


@dataclass(slots=True)
class _Registered:
    name: str
    region: ClientRegion
    uses: int = 0
    is_leaving: bool = False


class ClientRegions:
    """All registered regions, both kinds under one set of names."""

    def __init__(self) -> None:
        """None is registered."""
        self._by_name: dict[str, _Registered] = {}
        self._by_number: dict[int, _Registered] = {}
        self._numbers = 0

    def register(self, wanted: RegisterRegion, workers: Iterable[str]) -> list[Effect]:
        """Register a region that a frontend has found to exist. Raises Rejected (the name is taken), ProtocolError."""
        _check_kind(wanted.kind)
        if wanted.name in self._by_name:
            text = f"shared memory region '{wanted.name}' already in manager"
            raise Rejected(text, ErrorCode.ALREADY_EXISTS)
        self._numbers += 1
        region = ClientRegion(
            self._numbers,
            wanted.kind,
            wanted.key,
            wanted.offset,
            wanted.byte_size,
            wanted.device_id,
            wanted.handle,
        )
        entry = _Registered(wanted.name, region)
        self._by_name[wanted.name] = self._by_number[self._numbers] = entry
        return [Send(worker, region) for worker in workers]

    def unregister(self, wanted: UnregisterRegion, workers: Iterable[str]) -> list[Effect]:
        """Forget a region (name `""`: all of the kind), at once or when its last request is answered.

        An unknown name, or one of the other kind, is no error.
        """
        told = list(workers)
        effects: list[Effect] = []
        for entry in list(self._by_name.values()):
            if entry.region.kind == wanted.kind and wanted.name in ("", entry.name):
                entry.is_leaving = True
                effects += self._drop_if_unused(entry, told)
        return effects

    def status(self, question: GetRegionStatus) -> list[dict[str, object]]:
        """The regions of a kind, or the one that is named. Raises Rejected, ProtocolError."""
        _check_kind(question.kind)
        if question.name:
            entry = self._by_name.get(question.name)
            if entry is None:
                text = f"Unable to find {question.kind} shared memory region: '{question.name}'"
                raise Rejected(text, ErrorCode.NOT_FOUND)
            if entry.region.kind != question.kind:
                raise Rejected(
                    f"The region named '{question.name}' is registered as {_WORDS[entry.region.kind]} shared memory, "
                    f"not {_WORDS[question.kind]} shared memory",
                    ErrorCode.NOT_FOUND,
                )
        return [
            _describe(entry)
            for name, entry in sorted(self._by_name.items())
            if entry.region.kind == question.kind and question.name in ("", name)
        ]

    def joined(self, worker: str) -> list[Effect]:
        """A new worker hears of all regions."""
        return [Send(worker, entry.region) for entry in self._by_number.values()]

    def resolve(self, infer: Infer) -> tuple[Infer, tuple[int, ...]]:
        """Turn names into numbers and offsets into absolute ones; every region named is in use now. Raises Rejected."""
        if not infer.targets and not [ref for ref in infer.inputs if ref.region[:1] == MARK]:
            return infer, ()
        used: list[int] = []
        inputs: list[TensorRef] = []
        for ref in infer.inputs:
            if ref.region.startswith(MARK):
                entry = self._find(ref.region.removeprefix(MARK), ref.offset, ref.byte_size)
                used.append(entry.region.number)
                inputs.append(_moved(ref, entry.region))
            else:
                inputs.append(ref)
        targets: list[Target] = []
        for target in infer.targets:
            entry = self._find(target.region.removeprefix(MARK), target.offset, target.byte_size)
            used.append(entry.region.number)
            place = f"{MARK}{entry.region.number}"
            targets.append(target._replace(region=place, offset=entry.region.offset + target.offset))
        for number in used:
            self._by_number[number].uses += 1
        return infer._replace(inputs=tuple(inputs), targets=tuple(targets)), tuple(used)

    def release(self, used: Iterable[int], workers: Iterable[str]) -> list[Effect]:
        """A request that used these regions is answered."""
        told = list(workers)
        effects: list[Effect] = []
        for number in used:
            entry = self._by_number[number]
            entry.uses -= 1
            effects += self._drop_if_unused(entry, told)
        return effects

    def _find(self, name: str, offset: int, byte_size: int) -> _Registered:
        entry = self._by_name.get(name)
        if entry is None or entry.is_leaving:
            raise Rejected(f"Unable to find shared memory region: '{name}'", ErrorCode.NOT_FOUND)
        if offset >= entry.region.byte_size:
            raise Rejected(f"Invalid offset for shared memory region: '{name}'")
        if offset + byte_size > entry.region.byte_size:
            raise Rejected(f"Invalid offset + byte size for shared memory region: '{name}'")
        return entry

    def _drop_if_unused(self, entry: _Registered, workers: list[str]) -> list[Effect]:
        if not entry.is_leaving or entry.uses or entry.region.number not in self._by_number:
            return []
        del self._by_name[entry.name], self._by_number[entry.region.number]
        return [Send(worker, ClientRegionGone(entry.region.number)) for worker in workers]


def _check_kind(kind: str) -> None:
    if kind not in _WORDS:
        raise ProtocolError(f"a region of the kind '{kind}'")


def _moved(ref: TensorRef, region: ClientRegion) -> TensorRef:
    return ref._replace(region=f"{MARK}{region.number}", offset=region.offset + ref.offset)


def _describe(entry: _Registered) -> dict[str, object]:
    region = entry.region
    if region.kind == "cuda":
        return {"name": entry.name, "device_id": region.device_id, "byte_size": region.byte_size}
    return {"name": entry.name, "key": region.key, "offset": region.offset, "byte_size": region.byte_size}
