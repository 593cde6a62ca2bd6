"""The core in a world where anything may happen at any time: every request is answered exactly once, whatever comes."""

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from broker.messages import COMPLETE, ErrorCode, Execute, Executed, Part
from configs.description import DynamicBatching, Instance, ModelDescription, Resource, Tenants
from configs.sequences import SequenceBatching
from tests.unit.broker.describe import description, infer
from tests.unit.broker.sequences import END, START
from tests.unit.broker.sequences import settings as sequences
from tests.unit.broker.world import Process, Record, World

T = TypeVar("T")
MODELS = st.sampled_from(["a", "b"])
INDEX = st.integers(0, 1000)  # of a thing to choose, modulo how many there are


class Configuration(NamedTuple):
    """What a model's configuration may say; short in the report of a failure."""

    model: str
    kinds: Sequence[str] = ("cpu",)  # of each instance
    versions: tuple[int, ...] = (1,)
    batching: DynamicBatching | None = None
    sequences: SequenceBatching | None = None  # then there is no other batching
    retry_on_crash: str = "true"
    execution_timeout_ms: str = "0"
    files: str = "a"
    is_broken: bool = False
    is_decoupled: bool = False
    batch_key: str = ""
    is_shared: bool = False

    def description(self) -> ModelDescription:
        """As the repository would describe it."""
        parameters = {"retry_on_crash": self.retry_on_crash, "execution_timeout_ms": self.execution_timeout_ms}
        return description(
            self.model,
            versions=self.versions,
            batching=self.batching if self.sequences is None else None,
            sequence_batching=self.sequences,
            max_batch_size=8,
            instances=tuple(self._instance(number, kind) for number, kind in enumerate(self.kinds)),
            parameters=parameters,
            decoupled=self.is_decoupled,
            config={"broken": self.is_broken, "response_cache": {"enable": self.sequences is None}},
            batch_key=self.batch_key,
            tenants=Tenants("tenant", {"1": 3.0}) if self.is_shared else None,
            fingerprint=str(self._replace(kinds=(), versions=(), batching=None)),
        )

    def _instance(self, number: int, kind: str) -> Instance:
        """What it takes counts only with a rate limiter."""
        resources = (Resource("R", 0, 1 if kind == "cpu" else 2), Resource(self.model, None, 1))
        return Instance(f"{self.model}_{number}", "KIND_CPU", "", "", kind, resources)


def mostly(usual: T, *others: T) -> st.SearchStrategy[T]:
    """What is usual in three of four cases."""
    return st.sampled_from([usual] * 3 * len(others) + list(others))


KINDS = st.lists(mostly("cpu", "gpu"), min_size=1, max_size=3)
BATCHINGS = st.none() | st.builds(
    DynamicBatching, st.sampled_from([(8,), (4,), (2, 6)]), st.sampled_from([0.0, 0.01, 2.0]), st.booleans()
)
SEQUENCES = st.builds(
    sequences, st.integers(1, 4), st.just(5.0), st.booleans(), max_queue_delay=st.sampled_from([0.0, 1.0])
)
CONFIGURATIONS = {
    model: st.builds(
        Configuration,
        st.just(model),
        KINDS,
        mostly((1,), (2,), (1, 2)),
        BATCHINGS,
        st.none() | st.none() | SEQUENCES,
        mostly("true", "false"),
        mostly("0", "5000"),
        mostly("a", "b"),
        mostly(False, True),
        mostly(False, True),
        mostly("", "kind"),
        mostly(False, True),
    )
    for model in ("a", "b")
}


class CoreMachine(RuleBasedStateMachine):
    """Clients, workers, the repository and the clock do what they can, in any order."""

    world: World
    current: dict[str, Configuration]
    caches: tuple[str, ...] = ()
    digest = b""

    def choose(self, things: Sequence[T], index: int) -> T:
        return things[index % len(things)]

    @initialize(
        first=CONFIGURATIONS["a"],
        second=CONFIGURATIONS["b"],
        frontends=st.integers(1, 2),
        rate_limit=mostly("off", "execution_count"),
    )
    def start(self, first: Configuration, second: Configuration, frontends: int, rate_limit: str) -> None:
        self.world = World({"http": frontends, "metrics": 1}, rate_limit=rate_limit, cache_config=self.caches)
        self.current = {"a": first, "b": second}
        self.world.start(first.description(), second.description())

    # ------------------------------------------------------------------------------------------- configuration

    @precondition(lambda self: self.world.of("repository"))
    @rule(model=MODELS, data=st.data(), what=st.sampled_from(["kinds", "batching", "anything", "nonsense", "removal"]))
    def edit(self, model: str, data: st.DataObject, what: str) -> None:
        now = self.current[model]
        if what == "nonsense":
            self.world.reject(model, "config.pbtxt:1:1: nonsense")
            return
        if what == "removal":
            self.world.remove(model)
            return
        if what == "kinds":
            now = now._replace(kinds=data.draw(KINDS))
        elif what == "batching":
            now = now._replace(batching=data.draw(BATCHINGS))
        else:
            now = data.draw(CONFIGURATIONS[model])
        self.current[model] = now
        self.world.describe(now.description())

    # ------------------------------------------------------------------------------------------- clients

    @precondition(lambda self: self.world.frontends)
    @rule(
        index=INDEX,
        model=mostly("a", "b", "unknown"),
        shapes=st.lists(mostly((1, 4), (6, 4), (1, 5), None), min_size=1, max_size=6),
        begins=st.booleans(),
        ends=mostly(True, False),
    )
    def ask(self, index: int, model: str, shapes: list[tuple[int, ...] | None], begins: bool, ends: bool) -> None:
        frontend = self.choose(self.world.frontends, index)
        for number, shape in enumerate(shapes, index):
            is_valid = shape is not None and self.takes(model, shape[0])
            parameters = {"kind": number % 2, "tenant": number % 3}
            flags = START | END * ends
            question = infer(0, model, shape or (9, 4), parameters=parameters, digest=self.digest, flags=flags)
            self.world.ask(frontend, question, is_valid)
        if begins:
            self.begin()

    def takes(self, model: str, batch: int) -> bool:
        """Whether a model that there is takes requests of this batch size: a sequence's have to be 1."""
        found = self.world.core.models.get(model)
        version = found.newest_ready() if found is not None else None
        return found is not None and (batch == 1 or version is None or version.sequences is None)

    def clients(self) -> list[Record]:
        """Open requests of clients that can say something about them."""
        return [
            r for r in self.world.open_records() if r.version and self.world.processes[r.peer] in self.world.frontends
        ]

    @precondition(lambda self: self.clients())
    @rule(index=INDEX, goes=st.booleans())
    def client(self, index: int, goes: bool) -> None:
        record = self.choose(self.clients(), index)
        self.world.cancel(record) if goes else self.world.consume(record)

    # ------------------------------------------------------------------------------------------- workers

    def running(self) -> list[Process]:
        return [p for p in self.world.processes.values() if p.is_running]

    def waiting(self) -> list[Process]:
        """Workers that could begin a batch."""
        found = [p for p in self.world.workers if p.is_running and p.begun is None]
        for worker in found:
            self.world.hear(worker)
        return [p for p in found if p.inbox and isinstance(p.inbox[0], Execute)]

    def executing(self) -> list[Process]:
        return [p for p in self.world.workers if p.is_running and p.begun is not None]

    @rule()
    def begin(self) -> None:
        for worker in self.waiting():
            self.world.begin(worker)

    @precondition(lambda self: [p for p in self.executing() if not self.world.calls_of(p)])
    @rule(
        index=INDEX,
        code=mostly(ErrorCode.OK, ErrorCode.INTERNAL),
        seconds=st.sampled_from([0.0001, 0.005, 0.5]),
        stays_open=st.booleans(),
        arrives=mostly(True, False),
    )
    def finish(self, index: int, code: ErrorCode, seconds: float, stays_open: bool, arrives: bool) -> None:
        worker = self.choose([p for p in self.executing() if not self.world.calls_of(p)], index)
        version = self.world.core.fleet.workers[worker.token].version
        part = Part.NONE if stays_open and version.description.decoupled else COMPLETE
        self.world.finish(worker, code, seconds, part)
        if arrives:
            self.world.deliver(worker)

    def streaming(self) -> list[tuple[Process, int, int]]:
        return [(p, *key) for p in self.world.workers if p.is_running for key in p.open_items]

    @precondition(lambda self: self.streaming())
    @rule(index=INDEX, part=st.sampled_from([Part.CONTENT, COMPLETE]))
    def respond(self, index: int, part: Part) -> None:
        worker, attempt, item = self.choose(self.streaming(), index)
        self.world.respond(worker, attempt, item, part)
        self.world.deliver(worker)

    @precondition(lambda self: self.executing())
    @rule(index=INDEX, model=MODELS)
    def call(self, index: int, model: str) -> None:
        """A model calls another."""
        caller = self.choose(self.executing(), index)
        assert caller.begun is not None
        if not caller.is_doomed:
            request = infer(0, model, (1, 4), attempt=caller.begun.attempt, flags=START | END)
            self.world.ask(caller, request, model in self.world.core.models)

    # ------------------------------------------------------------------------------------------- processes

    def loading(self) -> list[Process]:
        for worker in self.world.workers:
            self.world.hear(worker)
        return [p for p in self.world.workers if p.is_running and p.load is not None]

    @precondition(lambda self: self.loading())
    @rule(index=INDEX, fails=mostly(False, True), announces=mostly(True, False))
    def load(self, index: int, fails: bool, announces: bool) -> None:
        worker = self.choose(self.loading(), index)
        assert worker.load is not None
        is_broken = '"broken": true' in worker.load.config
        self.world.load(worker, "no" if fails or is_broken else "", announces)

    @rule(turns=st.integers(1, 5))
    def work(self, turns: int) -> None:
        """Everybody does what is next: most of the time nothing goes wrong."""
        for _ in range(turns):
            for process in self.running():
                if self.world.exit_status is None and process.is_running:
                    self.world.turn(process)

    @rule(
        index=INDEX,
        who=st.sampled_from(["executing", "streaming", "worker", "other", "doomed"]),
        is_outside=st.booleans(),
        delivers=st.booleans(),
        is_noticed=mostly(True, False),
    )
    def die(self, index: int, who: str, is_outside: bool, delivers: bool, is_noticed: bool) -> None:
        """A process ends; what it has sent may be lost, and it may take a while to be noticed."""
        candidates = {
            "executing": self.executing(),
            "streaming": [process for process, _, _ in self.streaming()],
            "worker": self.world.workers,
            "other": [p for p in self.running() if p.role != "worker"],
            "doomed": [p for p in self.world.processes.values() if p.is_doomed or not p.is_alive],
        }[who]
        if candidates:
            process = self.choose(candidates, index)
            self.world.die(process)
            if is_noticed:
                self.world.bury(process, is_outside, delivers)

    @precondition(lambda self: self.executing())
    @rule(index=INDEX, strikes=st.integers(2, 5), is_outside=st.booleans())
    def follow(self, index: int, strikes: int, is_outside: bool) -> None:
        """Death follows a request from worker to worker."""
        victim: Process | None = self.choose(self.executing(), index)
        assert victim is not None
        request = min(victim.holding, default="")
        for _ in range(strikes):
            if victim is not None and self.world.exit_status is None:
                self.world.bury(victim, is_outside)
                self.begin()
                victim = next((p for p in self.executing() if request in p.holding), None)

    @precondition(lambda self: self.running())
    @rule(index=INDEX, kind=st.sampled_from(["stop", "garbage", "hang up", "too little", "unasked"]))
    def misbehave(self, index: int, kind: str) -> None:
        """A process is stopped by a signal, breaks the protocol, or loses its connection."""
        world, process = self.world, self.choose(self.running(), index)
        if kind == "stop":
            process.is_stopped = True
        elif kind == "garbage":
            world.apply(world.core.malformed(process.token, "nonsense", world.now))
            assert process.is_doomed
        elif kind == "hang up":
            world.apply(world.core.unreachable(process.token, world.now))
        elif kind == "too little" and process.begun is not None:
            world.deliver(process)
            world.say(process, Executed(process.begun.attempt, (), (0, 0, 0, 0)))
            world.deliver(process)
            assert process.is_doomed
        elif kind == "unasked" and process.role == "worker":
            world.say(process, Executed(10**9, (), (0, 0, 0, 0)))
            world.deliver(process)

    # ------------------------------------------------------------------------------------------- time and the end

    @rule(seconds=st.sampled_from([0.005, 0.02, 1.0, 3.0, 12.0, 40.0]))
    def wait(self, seconds: float) -> None:
        self.world.advance(seconds)

    @precondition(lambda self: len(self.world.records) > 20)
    @rule(is_serious=mostly(False, True))
    def drain(self, is_serious: bool) -> None:
        if is_serious:
            self.world.apply(self.world.core.drain("received SIGTERM", self.world.now))

    @invariant()
    def readiness_is_true(self) -> None:
        self.world.check_ready()

    def teardown(self) -> None:
        world = self.world
        world.settle()
        if world.exit_status is None:
            world.check_settled()
            world.apply(world.core.drain("received SIGTERM", world.now))
            world.settle()
        assert not world.open_records(), "requests without a final response"
        assert world.exit_status == 0
        assert not world.processes
        assert not world.regions, "regions of the dead"


CoreMachine.TestCase.settings = settings(max_examples=2 * settings.default.max_examples, stateful_step_count=40)
TestCore = CoreMachine.TestCase


class CachedCoreMachine(CoreMachine):
    """The same, and every request is looked for in a remote cache, whose process may die as any other."""

    caches = ("redis,host=h",)
    digest = b"d"


CachedCoreMachine.TestCase.settings = settings(max_examples=settings.default.max_examples, stateful_step_count=40)
TestCachedCore = CachedCoreMachine.TestCase
