"""Sequences where anything may happen: each request has one fate, and none passes another of its sequence."""

from typing import Any

import hypothesis.strategies as st
from hypothesis import settings as hypothesis_settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from broker.request import Request
from broker.validation import Rejected
from tests.unit.broker.sequences import END, START, Round, settings

INDEX = st.integers(0, 1000)


class SequenceMachine(RuleBasedStateMachine):
    """Clients, workers and the clock do what they can, in any order."""

    world: Round

    @initialize(
        slots=st.integers(1, 3),
        is_direct=st.booleans(),
        delay=st.sampled_from([0.0, 0.5]),
        workers=st.integers(1, 2),
        is_iterative=st.sampled_from([False, False, True]),
    )
    def start(self, slots: int, is_direct: bool, delay: float, workers: int, is_iterative: bool) -> None:
        self.slots = slots
        wait = {"max_queue_delay": delay, "minimum_slot_utilization": 0.6 * is_direct}
        batching = settings(slots, 4.0, is_direct, is_iterative=is_iterative, **wait)
        self.world = Round(batching, workers, max_batch_size=slots)
        self.accepted: list[Request] = []
        self.before: dict[Request, Request | None] = {}  # the request of its sequence that has to be executed first
        self.places: dict[Request, str] = {}  # where it was given to a worker last
        self.executed: dict[Request, str] = {}
        self.gone: list[Request] = []  # refused, removed, or met a death in its execution
        self.last: dict[Any, Request] = {}
        self.seen = self.told = 0

    @rule(identity=st.integers(1, 5), flags=st.sampled_from([0, 0, 0, START, START, END, START | END]),
          size=st.sampled_from([4, 4, 4, 6]), timeout_us=st.sampled_from([0, 0, 1_000_000]))  # fmt: skip
    def ask(self, identity: int, flags: int, size: int, timeout_us: int) -> None:
        is_known = identity in self.world.scheduler.live()
        try:
            request = self.world.ask(identity, flags, size, timeout_us=timeout_us)
        except Rejected:
            assert not is_known
            assert not flags & START
            return
        assert is_known or flags & START
        self.accepted.append(request)
        self.before[request] = self.last[identity] if is_known else None
        self.last[identity] = request

    def busy(self) -> list[int]:
        return [index for index, worker in enumerate(self.world.workers) if worker.attempts]

    @precondition(lambda self: self.busy())
    @rule(index=INDEX, again=st.booleans())
    def finish(self, index: int, again: bool) -> None:
        worker = self.busy()[index % len(self.busy())]
        peer = self.world.workers[worker].peer
        (batch,) = self.world.workers[worker].attempts.values()
        requests = [request for request in batch if not request.is_done]
        rest = requests[1:] if again and self.world.scheduler.is_iterative else []
        self.executed.update({request: peer for request in requests if request not in rest})
        self.world.finish(worker, tuple(rest))

    @rule(index=INDEX, began=st.booleans())
    def die(self, index: int, began: bool) -> None:
        worker = self.world.workers[index % len(self.world.workers)]
        if began:
            self.gone += [r for batch in worker.attempts.values() for r in batch if not r.is_done]
        self.world.die(index % len(self.world.workers), began)

    @rule(index=INDEX)
    def toggle(self, index: int) -> None:
        """A worker drains, or comes back."""
        worker = self.world.workers[index % len(self.world.workers)]
        worker.is_ready = not worker.is_ready
        self.world.dispatch()

    @precondition(lambda self: self.accepted)
    @rule(index=INDEX)
    def cancel(self, index: int) -> None:
        request = self.accepted[index % len(self.accepted)]
        if self.world.scheduler.remove(request):
            self.gone.append(request)
        self.world.dispatch()

    @rule(seconds=st.sampled_from([0.1, 1.0, 5.0]))
    def wait(self, seconds: float) -> None:
        self.world.wait(seconds)

    @invariant()
    def each_has_its_place(self) -> None:
        for peer, batch in self.world.sent[self.seen :]:
            requests = [request for request in batch if not request.is_done]
            assert requests
            assert len(batch) <= self.slots
            assert len({request.message.inputs[0].shape for request in batch}) == 1
            for request in requests:
                assert request not in self.gone
                assert request not in self.executed
                first = self.before[request]
                if first is not None:
                    assert self.executed[first] == peer, "it goes on elsewhere, or too early"
                self.places[request] = peer
        self.seen = len(self.world.sent)
        self.gone += [refusal.request for refusal in self.world.refused[self.told :]]
        self.told = len(self.world.refused)
        assert len(set(self.gone)) == len(self.gone), "two answers"
        assert not set(self.gone) & self.executed.keys(), "two answers"

    @invariant()
    def nothing_is_left_waiting(self) -> None:
        scheduler = self.world.scheduler
        idle = [worker for worker in self.world.workers if worker.is_ready and not worker.attempts]
        held = sum(len(lane.sequences) for lane in scheduler._lanes.values())
        assert held <= self.slots * len(self.world.workers)
        if any(not scheduler.holds(worker) for worker in idle):
            assert not scheduler._backlog, "a free slot, and sequences that wait for one"
        if len(scheduler) and len(idle) == len(self.world.workers):
            assert scheduler.next_expiry() is not None, "nobody will look at what is queued"

    def teardown(self) -> None:
        world = self.world
        for worker in world.workers:
            worker.is_ready = True
        world.dispatch()
        self.each_has_its_place()
        for _ in range(100):
            while self.busy():
                self.finish(0, again=False)
                self.each_has_its_place()
            world.wait(2.0)
            self.each_has_its_place()
        assert len(world.scheduler) == 0
        assert sorted(map(id, [*self.executed, *self.gone])) == sorted(map(id, self.accepted)), "forgotten"
        assert world.scheduler.live() == []
        assert not any(world.scheduler.holds(worker) for worker in world.workers)
        assert world.scheduler.next_expiry() is None
        assert not world.scheduler._running


SequenceMachine.TestCase.settings = hypothesis_settings(
    max_examples=2 * hypothesis_settings.default.max_examples, stateful_step_count=30
)
TestSequences = SequenceMachine.TestCase
