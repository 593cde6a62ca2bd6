"""Mode on-demand in a world where anything may happen: models sleep and wake, and every request is answered once."""

from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import initialize, invariant, rule

from broker.effects import Effect
from broker.messages import ErrorCode, Execute, Infer, MemorySampled, Message, Sample
from broker.models import Version
from configs.description import ModelDescription
from tests.unit.broker.test_core_machine import CONFIGURATIONS, Configuration, CoreMachine, mostly
from tests.unit.broker.world import Process, Record, World

PROCESS_BYTES = 100


class DrowsyWorld(World):
    """A world whose models may have to be loaded: a request may wait for another version than the one that it met."""

    def ask(self, frontend: Process, infer: Infer, is_valid: bool = True) -> Record:
        """A request arrives; what becomes of it shows later."""
        self.numbers += 1
        request_id = f"{frontend.token}/{self.numbers}"
        identity = infer.correlation_id or self.numbers
        infer = infer._replace(request=self.numbers, request_id=request_id, received=self.now, correlation_id=identity)
        record = self.records[request_id] = Record(frontend.token, infer, is_valid)
        record.allowed = {ErrorCode.UNAVAILABLE, ErrorCode.NOT_FOUND, ErrorCode.INVALID_ARG}
        self.deliver(frontend)
        self.say(frontend, infer)
        self.deliver(frontend)
        for waiting in self.records.values():
            if waiting.worker and (waiting.worker, waiting.attempt) == (frontend.token, infer.attempt):
                waiting.has_called = True
        return record

    def describe(self, description: ModelDescription) -> None:
        """Without the promise of an order, which this world does not follow."""
        batching = description.dynamic_batching
        super().describe(replace(description, dynamic_batching=batching and replace(batching, preserve_ordering=False)))

    def _is_out(self, version: Version | None) -> bool:
        return version is None or super()._is_out(version)

    def hear(self, process: Process) -> None:
        """The repository process measures when it is told to."""
        if process.role == "repository":
            asked = [message for message in process.inbox if isinstance(message, Sample)]
            self.say(process, *[MemorySampled({4711: PROCESS_BYTES}, {}, {}) for _ in asked])
        super().hear(process)

    def _check_sent(self, process: Process, message: Message) -> None:
        if isinstance(message, Execute):
            for item in message.items:
                if item.request_id in self.records:
                    self.records[item.request_id].version = self.core.fleet.workers[process.token].version
        super()._check_sent(process, message)

    def apply(self, effects: list[Effect]) -> None:
        """As ever; and nobody waits unseen."""
        super().apply(effects)
        assert not self.core.on_demand.is_holding or self.core.requests.wanted


class OnDemandMachine(CoreMachine):
    """The same clients, workers and accidents."""

    @initialize(
        first=CONFIGURATIONS["a"],
        second=CONFIGURATIONS["b"],
        frontends=st.integers(1, 2),
        rate_limit=mostly("off", "execution_count"),
        limit=st.sampled_from([0, 250, 600]),
        idle_ttl=st.sampled_from([0.0, 2.0]),
    )
    def start(self, first: Configuration, second: Configuration, frontends: int, rate_limit: str, **more: Any) -> None:
        limits = {"model_memory_budget": more["limit"], "model_idle_ttl": more["idle_ttl"]}
        mode = {"model_control_mode": "on-demand", "rate_limit": rate_limit}
        self.world = DrowsyWorld({"http": frontends, "metrics": 1}, **mode, **limits)
        self.current = {"a": first, "b": second}
        self.world.start(first.description(), second.description())

    @rule()
    def measure(self) -> None:
        for process in self.world.of("repository"):
            self.world.hear(process)
            self.world.deliver(process)

    @invariant()
    def readiness_is_true(self) -> None:
        core = self.world.core
        assert core.is_ready == (core.is_started and not core.requests.is_stopping)

    def teardown(self) -> None:
        super().teardown()
        assert not self.world.core.on_demand.is_holding
        assert not self.world.core.requests.wanted


TestOnDemand = OnDemandMachine.TestCase
TestOnDemand.settings = settings(max_examples=settings.default.max_examples // 2, stateful_step_count=30)
