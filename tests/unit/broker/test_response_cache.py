"""The response cache by itself: what is found, what goes first, and when a block is given back."""

from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from broker.effects import Effect, Send
from broker.messages import Forget, Keep, Kept
from broker.request import Request
from broker.response_cache import ENTRY, PAGE, ResponseCache
from shm.ref import TensorRef
from tests.unit.broker.describe import infer

LIMIT = 4 * (ENTRY + PAGE)
FRONTENDS, WORKERS, VERSIONS = ("h1", "g2"), ("w3", "w4"), ("one", "two")


def request(digest: bytes = b"d", version: str = "one", peer: str = "h1") -> Request:
    return Request(peer, infer(1, digest=digest), version, (), 1, 0.0)


def block(generation: int, byte_size: int = PAGE) -> TensorRef:
    return TensorRef("OUT", "UINT8", (byte_size,), byte_size, None, "tidepool-s-w3-0", 0, 7, generation)


def small(text: bytes = b"x") -> TensorRef:
    return TensorRef("OUT", "UINT8", (len(text),), len(text), text)


def kept(*outputs: TensorRef) -> Kept:
    return Kept(1, 0, outputs, {"p": 1}, 5)


class Filled:
    """A cache, and what it has told the workers."""

    def __init__(self, byte_size: int = LIMIT) -> None:
        self.out: list[Effect] = []
        self.cache = ResponseCache(byte_size, self.out)

    def insert(self, digest: bytes, *outputs: TensorRef, worker: str = "w3", version: str = "one") -> None:
        self.cache.insert(worker, request(digest, version), kept(*outputs), outputs)

    def finds(self, digest: bytes, version: str = "one", peer: str = "h1") -> bool:
        return self.cache.look_up(request(digest, version, peer), 0) is not None

    def forgotten(self) -> list[tuple[str, tuple[int, ...]]]:
        told = [
            (e.peer, e.message.generations) for e in self.out if isinstance(e, Send) and isinstance(e.message, Forget)
        ]
        self.out.clear()
        return told


def test_an_answer_is_found_by_version_and_digest() -> None:
    filled = Filled()
    assert not filled.finds(b"d")
    filled.insert(b"d", small(b"yes"))
    entry = filled.cache.look_up(request(), 3)
    assert entry is not None
    assert (entry.outputs, entry.parameters) == ((small(b"yes"),), {"p": 1})
    assert not filled.finds(b"d", version="two")
    assert not filled.finds(b"e")
    assert (filled.cache.hits, filled.cache.misses, filled.cache.lookup_ns, filled.cache.insertion_ns) == (1, 3, 3, 5)


def test_the_least_recently_used_goes_first() -> None:
    filled = Filled(2 * ENTRY + 10)
    filled.insert(b"a", small())
    filled.insert(b"b", small())
    assert filled.finds(b"a")
    filled.insert(b"c", small())
    assert [filled.finds(digest) for digest in (b"a", b"b", b"c")] == [True, False, True]
    assert filled.cache.evictions == 1


def test_what_does_not_fit_and_what_is_there_already_is_given_back_at_once() -> None:
    filled = Filled()
    filled.insert(b"large", block(1, LIMIT))
    assert filled.forgotten() == [("w3", (1,))]
    filled.insert(b"d", block(2), small())
    filled.insert(b"d", block(3), small())
    assert filled.forgotten() == [("w3", (3,))]
    assert len(filled.cache) == 1


def test_a_block_is_given_back_when_its_last_reader_has_read_it() -> None:
    filled = Filled()
    filled.insert(b"d", block(1), block(2))
    found = [filled.cache.look_up(request(peer=peer), 0) for peer in FRONTENDS]
    (number,) = {-ref.generation for entry in found if entry is not None for ref in entry.outputs}
    filled.cache.retain(())
    assert not filled.finds(b"d")
    filled.cache.read("h1", number)
    filled.cache.read("h1", number)
    filled.cache.read("h1", number)  # once too often
    filled.cache.read("g2", number)
    assert filled.forgotten() == []
    filled.cache.frontend_lost("g2")
    assert filled.forgotten() == [("w3", (1, 2))]
    filled.cache.read("g2", number)
    assert filled.forgotten() == []


def test_entries_go_with_the_worker_that_has_their_blocks() -> None:
    filled = Filled()
    filled.insert(b"block", block(1))
    filled.insert(b"small", small())
    filled.insert(b"other", block(2), worker="w4")
    filled.cache.worker_lost("w3")
    assert [filled.finds(digest) for digest in (b"block", b"small", b"other")] == [False, True, True]
    assert filled.forgotten() == []


def test_workers_are_asked_to_keep_what_is_not_known() -> None:
    filled = Filled()
    filled.insert(b"known", small())
    filled.cache.keep("w4", 9, [request(b"new"), request(b"known"), request(b""), request(b"newer")])
    assert filled.out == [Send("w4", Keep(9, (0, 3), LIMIT - ENTRY))]
    filled.out.clear()
    filled.cache.keep("w4", 10, [request(b""), request(b"known")])
    assert filled.out == []


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3 * PAGE)), max_size=30))
def test_it_never_holds_more_than_it_may(given_sizes: list[tuple[int, int]]) -> None:
    filled = Filled()
    for key, size in given_sizes:
        filled.insert(b"%d" % key, block(1, size))
        assert filled.cache.used <= LIMIT


class Machine(RuleBasedStateMachine):
    """Whatever happens, in whatever order: no block is forgotten while it is read, none twice, and none is leaked."""

    entries = Bundle("entries")

    def __init__(self) -> None:
        super().__init__()
        self.filled = Filled(LIMIT // 2)
        self.blocks: dict[int, str] = {}  # generation -> worker
        self.reading: Counter[tuple[str, int]] = Counter()  # frontend, entry -> references
        self.blocks_of: dict[int, set[int]] = {}
        self.generation = 0

    def _look(self) -> None:
        for worker, generations in self.filled.forgotten():
            for generation in generations:
                assert self.blocks.pop(generation) == worker
                numbers = {n for n, blocks in self.blocks_of.items() if generation in blocks}
                assert not any(count for (_, number), count in self.reading.items() if number in numbers)

    @rule(
        key=st.integers(0, 3), count=st.integers(0, 2), worker=st.sampled_from(WORKERS), which=st.sampled_from(VERSIONS)
    )
    def insert(self, key: int, count: int, worker: str, which: str) -> None:
        outputs = []
        for _ in range(count):
            self.generation += 1
            self.blocks[self.generation] = worker
            outputs.append(block(self.generation))
        self.filled.insert(b"%d" % key, *outputs, small(), worker=worker, version=which)
        self._look()

    @rule(key=st.integers(0, 3), which=st.sampled_from(VERSIONS), peer=st.sampled_from(FRONTENDS))
    def hit(self, key: int, which: str, peer: str) -> None:
        entry = self.filled.cache.look_up(request(b"%d" % key, which, peer), 0)
        for ref in entry.outputs if entry is not None else ():
            if ref.data is None and entry is not None:
                self.reading[peer, entry.number] += 1
                self.blocks_of[entry.number] = set(entry.blocks)
                assert set(entry.blocks) <= set(self.blocks)

    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        under_way = [key for key, count in self.reading.items() if count]
        if under_way:
            peer, number = data.draw(st.sampled_from(under_way))
            self.reading[peer, number] -= 1
            self.filled.cache.read(peer, number)
            self._look()

    @rule(peer=st.sampled_from(FRONTENDS))
    def lose_frontend(self, peer: str) -> None:
        for key in [key for key in self.reading if key[0] == peer]:
            del self.reading[key]
        self.filled.cache.frontend_lost(peer)
        self._look()

    @rule(worker=st.sampled_from(WORKERS))
    def lose_worker(self, worker: str) -> None:
        self.blocks = {generation: owner for generation, owner in self.blocks.items() if owner != worker}
        self.filled.cache.worker_lost(worker)
        self._look()

    @rule(versions=st.sets(st.sampled_from(VERSIONS)))
    def retain(self, versions: set[Any]) -> None:
        self.filled.cache.retain(versions)
        self._look()

    @invariant()
    def within_its_limit(self) -> None:
        assert self.filled.cache.used <= LIMIT // 2

    def teardown(self) -> None:
        self.filled.cache.retain(())
        for peer in FRONTENDS:
            self.lose_frontend(peer)
        assert self.blocks == {}, "blocks that nobody gives back"
        assert self.filled.cache.used == 0


TestMachine = Machine.TestCase
