"""A small world for ensembles: fake workers whose outputs are terms, and memory that nobody may read too early or late.

The output of a model is a text that says how it was made, `add.OUT(x, y)`, so that a result shows the whole
computation. Every output lies in a block; the world holds that it is there when it is read, and that in the end no
block is left.
"""

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from broker.core import Core, Frontends
from broker.effects import Effect, Send, Start, Unlink
from broker.messages import (
    COMPLETE,
    PROTOCOL,
    Answer,
    Beat,
    Cancel,
    CheckReady,
    Consumed,
    Credit,
    ErrorCode,
    Execute,
    Executed,
    Hello,
    Item,
    Load,
    Loaded,
    LoadFailed,
    Message,
    ModelDescribed,
    Part,
    PassOn,
    PeerGone,
    ReadyChecked,
    RegionClosed,
    RegionDropped,
    RegionOpened,
    RepositoryScanned,
    Responded,
    Response,
    Result,
    Serving,
)
from broker.requests import Death
from configs.description import EnsembleStep, ModelDescription, TensorSpec
from configs.server import ServerConfig
from shm.ref import TensorRef
from tests.unit.broker.describe import description, infer, instances

Key = tuple[str, int, int]


class Step(NamedTuple):
    """A step of an ensemble in few words."""

    model: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    version: int = -1


def specs(names: Iterable[str], **more: Any) -> tuple[TensorSpec, ...]:
    """FP32 tensors of any length."""
    return tuple([TensorSpec(name, "FP32", (-1,), **more) for name in names])


def model(name: str, inputs: str, outputs: str, **more: Any) -> ModelDescription:
    """A model; the names of its tensors are separated by blanks."""
    return description(name, inputs=specs(inputs.split()), outputs=specs(outputs.split()), **more)


def ensemble(name: str, inputs: str, outputs: str, *steps: Step, **more: Any) -> ModelDescription:
    """An ensemble of these steps."""
    made = tuple([EnsembleStep(s.model, s.version, tuple(s.inputs.items()), tuple(s.outputs.items())) for s in steps])
    return model(
        name, inputs, outputs, **{"backend": "", "platform": "ensemble", "instances": (), "steps": made, **more}
    )


class Asked(NamedTuple):
    """A request, and the results that have come so far: the outputs' terms by name, or an error."""

    number: int
    results: list[Any]
    parts: list[int]


class Worker:
    """A fake one."""

    def __init__(self, token: str, name: str) -> None:
        self.token = token
        self.model = name
        self.region = f"tidepool-s-{token}-0"
        self.inbox: deque[Execute] = deque()
        self.begun = 0
        self.streams: dict[tuple[int, int], list[Message]] = {}
        self.credits: dict[tuple[int, int], int] = {}
        self.mapped: set[str] = set()


class EnsembleWorld:
    """The core, one frontend, and a worker for each instance. Nothing moves unless it is told to."""

    def __init__(self, *models: ModelDescription, **settings: Any) -> None:
        self.core = Core(ServerConfig(exit_on_error=False, **settings), Frontends({"http": 1}, {}), 1.7e9)
        self.now = 1000.0
        self.workers: dict[str, Worker] = {}
        self.memory: dict[Key, tuple[str, str]] = {}  # block -> what lies in it, and who is to read it
        self.slots = 0
        self.asked: dict[int, Asked] = {}
        self.consumed: Counter[int] = Counter()
        self.gone: set[int] = set()  # requests of a dead frontend
        self.failing: dict[str, tuple[ErrorCode, str]] = {}  # models that answer with an error
        self.missing: set[tuple[str, str]] = set()  # (model, output) that is left out
        self.answers: dict[str, int] = {}  # decoupled model -> how many responses it sends
        self.loads_fail: LoadFailed | None = None
        self.asks_models = False  # whether models have a say in whether they are ready
        self.answered: list[Answer] = []
        self.frontend = ""
        self.repository = ""
        self.parameters: list[Item] = []  # every item that was executed
        self.apply(self.core.begin(self.now))
        self.handle(self.frontend, Hello(PROTOCOL, "http", 1), Serving())
        self.handle(self.repository, Hello(PROTOCOL, "repository", 2))
        self.describe(*models)
        self.handle(self.repository, RepositoryScanned())

    # ------------------------------------------------------------------------------------------- the core

    def describe(self, *models: ModelDescription) -> None:
        """The repository describes models, which are loaded at once."""
        self.handle(self.repository, *[ModelDescribed(each.to_wire()) for each in models])

    def handle(self, token: str, *messages: Message) -> None:
        """A peer sends something."""
        for message in messages:
            self.now += 0.001
            self.apply(self.core.handle(token, [message], self.now))

    def apply(self, effects: list[Effect]) -> None:  # noqa: C901  # one case per effect
        for effect in effects:
            match effect:
                case Start(token, role, name):
                    self.core.started(token, 100, self.now)
                    if role == "worker":
                        self.workers[token] = Worker(token, name.rsplit("_", 2)[0])
                    elif role == "http":
                        self.frontend = token
                    else:
                        self.repository = token
                case Send(token, message) if token in self.workers:
                    self._hear(self.workers[token], message)
                case Send(token, message) if token == self.frontend:
                    self._receive(message)
                case Unlink(name):
                    held = [key for key in self.memory if key[0] == name]
                    for key in held:
                        del self.memory[key]
                case _:
                    pass
        for worker in list(self.workers.values()):
            if worker.begun == 0:
                worker.begun = -1
                self.handle(worker.token, Hello(PROTOCOL, "worker", 100))

    def _hear(self, worker: Worker, message: Message) -> None:  # noqa: C901  # one case per message
        match message:
            case Load() if self.loads_fail is not None:
                self.handle(worker.token, self.loads_fail)
            case Load():
                self.handle(worker.token, Loaded((), (), {}, self.asks_models), RegionOpened(worker.region))
            case CheckReady(number):
                code, text = self.failing.get(worker.model, (ErrorCode.OK, ""))
                self.handle(worker.token, ReadyChecked(number, code, text))
            case Execute():
                worker.inbox.append(message)
            case RegionOpened(name):
                worker.mapped.add(name)
            case RegionClosed(name):
                worker.mapped.discard(name)
            case PassOn(region, slot, generation, reader):
                self._pass_on(worker, (region, slot, generation), reader)
            case Credit(attempt, item, responses):
                self._credit(worker, (attempt, item), responses)
            case PeerGone(peer):
                mine = [key for key, (_, reader) in self.memory.items() if key[0] == worker.region and reader == peer]
                for key in mine:
                    del self.memory[key]
            case _:
                pass

    def _pass_on(self, worker: Worker, key: Key, reader: str) -> None:
        assert key[0] == worker.region
        text, holder = self.memory[key]
        assert not holder, "a block is passed on twice"
        if reader:
            self.memory[key] = text, reader
        else:
            del self.memory[key]

    # ------------------------------------------------------------------------------------------- the client

    def ask(self, name: str, inputs: str, is_cancelled: bool = False, **more: Any) -> Asked:
        """A request whose inputs, `X Y`, have their own names as terms; perhaps cancelled with the same breath."""
        number = len(self.asked) + 1
        refs = tuple([TensorRef(each, "FP32", (4,), 16, None, f"client-{number}-{each}") for each in inputs.split()])
        asked = self.asked[number] = Asked(number, [], [])
        request = infer(number, name, inputs=refs, received=self.now, **more)
        messages = [request, Cancel(number)] if is_cancelled else [request]
        self.apply(self.core.handle(self.frontend, messages, self.now))
        return asked

    def cancel(self, asked: Asked) -> None:
        self.handle(self.frontend, Cancel(asked.number))

    def consume(self, asked: Asked) -> None:
        """The client takes one more response of a stream."""
        self.consumed[asked.number] += 1
        self.handle(self.frontend, Consumed(asked.number, 1))

    def is_open(self, asked: Asked) -> bool:
        return asked.number not in self.gone and not any(part & Part.FINAL for part in asked.parts)

    def _receive(self, message: Message) -> None:
        if isinstance(message, RegionClosed):
            self.handle(self.frontend, RegionDropped(message.name))
        if isinstance(message, Answer):
            self.answered.append(message)
        if not isinstance(message, Response):
            return
        asked = self.asked[message.request]
        assert self.is_open(asked), "two final responses"
        asked.parts.append(message.part)
        if message.code != ErrorCode.OK:
            asked.results.append((ErrorCode(message.code), message.error))
        elif message.part & Part.CONTENT:
            asked.results.append({ref.name: self._read_response(ref) for ref in message.outputs})

    def _read_response(self, ref: TensorRef) -> str:
        text, reader = self.memory.pop((ref.region, ref.slot, ref.generation))
        is_alive = any(worker.region == ref.region for worker in self.workers.values())
        assert reader == self.frontend or not is_alive, "nobody knows that the client reads this"
        return text

    # ------------------------------------------------------------------------------------------- workers

    def busy(self) -> list[Worker]:
        """Those that have something to do."""
        return [w for w in self.workers.values() if w.inbox or any(self._may_send(w, key) for key in w.streams)]

    def work(self, worker: Worker) -> None:
        """One step of a worker: a response of a stream, or a whole execution."""
        for key in [key for key in worker.streams if self._may_send(worker, key)]:
            worker.credits[key] -= 1
            message = worker.streams[key].pop(0)
            if not worker.streams[key]:
                del worker.streams[key]
            self.handle(worker.token, message)
            return
        execute = worker.inbox.popleft()
        worker.begun = execute.attempt
        t = int(self.now * 1e9)
        results = tuple([self._execute(worker, execute.attempt, i, item) for i, item in enumerate(execute.items)])
        self.handle(worker.token, Executed(execute.attempt, results, (t, t + 10, t + 30, t + 35)))

    def _execute(self, worker: Worker, attempt: int, index: int, item: Item) -> Result:
        self.parameters.append(item)
        terms = [f"{ref.name}={self._read_input(worker, ref)}" for ref in item.inputs]
        version = self.core.fleet.workers[worker.token].version
        outputs = item.outputs or tuple([spec.name for spec in version.signature.outputs])
        if worker.model in self.failing:
            return Result(*self.failing[worker.model], (), {})
        if not version.description.decoupled:
            return Result(ErrorCode.OK, "", self._write(worker, item, outputs, terms), {})
        key = (attempt, index)
        worker.credits[key] = 16
        worker.streams[key] = [
            Responded(
                *key, Result(ErrorCode.OK, "", self._write(worker, item, outputs, [*terms, str(n)]), {}, Part.CONTENT)
            )
            for n in range(self.answers.get(worker.model, 2))
        ]
        worker.streams[key].append(Responded(*key, Result(ErrorCode.OK, "", (), {}, Part.FINAL)))
        return Result(ErrorCode.OK, "", (), {}, Part.NONE)

    def _may_send(self, worker: Worker, key: tuple[int, int]) -> bool:
        return bool(worker.credits[key] > 0 or len(worker.streams[key]) == 1)

    def _credit(self, worker: Worker, key: tuple[int, int], responses: int) -> None:
        if key in worker.credits:
            worker.credits[key] += responses
            assert worker.credits[key] <= 16, "more credit than there were responses"

    def _read_input(self, worker: Worker, ref: TensorRef) -> str:
        if ref.region.startswith("client-"):
            _, number, name = ref.region.split("-")
            is_gone = int(number) in self.gone  # its memory has no name any more, but can be read
            assert is_gone or self.is_open(self.asked[int(number)]), (
                "the client's inputs are read after its final response"
            )
            return name
        assert ref.region in worker.mapped, f"{worker.token} does not know {ref.region}"
        text, reader = self.memory[ref.region, ref.slot, ref.generation]
        assert not reader, "the client has this already"
        return text

    def _write(self, worker: Worker, item: Item, names: Iterable[str], terms: list[str]) -> tuple[TensorRef, ...]:
        refs = []
        for name in names:
            if (worker.model, name) not in self.missing:
                self.slots += 1
                key = (worker.region, self.slots, self.slots)
                self.memory[key] = f"{worker.model}.{name}({', '.join(terms)})", item.reader
                refs.append(TensorRef(name, "FP32", (4,), 16, None, worker.region, 0, self.slots, self.slots))
        return tuple(refs)

    def kill(self, worker: Worker, has_begun: bool) -> None:
        """SIGKILL from outside, in the middle of an execution or before it. Another worker is started."""
        if has_begun and worker.inbox:
            worker.begun = worker.inbox[0].attempt
        del self.workers[worker.token]
        death = Death("killed by signal 9", True, worker.begun, ())
        self.apply(self.core.lost(worker.token, death, self.now))
        self.settle_regions(worker.region)
        self.tick(0.0)

    def kill_frontend(self) -> None:
        """The frontend dies with all that it was asked for; another one is started."""
        dead = self.frontend
        self.gone.update(number for number, asked in self.asked.items() if self.is_open(asked))
        self.apply(self.core.lost(dead, Death("killed by signal 9", True, 0, ()), self.now))
        self.tick(0.0)
        assert self.frontend != dead
        self.handle(self.frontend, Hello(PROTOCOL, "http", 1), Serving())

    def settle_regions(self, region: str) -> None:
        """Nothing of a dead worker that nobody is to read any more stays."""
        is_needed = region in self.core.requests.held_regions()
        assert is_needed or not any(key[0] == region for key in self.memory)

    def tick(self, seconds: float) -> None:
        for token in (self.frontend, self.repository, *self.workers):
            self.handle(token, Beat(0, 0))
        self.now += seconds
        self.apply(self.core.tick(self.now))

    def settle(self) -> None:
        """Let everything come to its end."""
        for _ in range(3_000):
            for asked in self.asked.values():
                if self.is_open(asked) and self.consumed[asked.number] < len(asked.results):
                    self.consume(asked)
            busy = self.busy()
            if busy:
                self.work(busy[0])
            elif all(not self.is_open(asked) for asked in self.asked.values()):
                return
            else:
                self.tick(1.0)  # a worker is yet to be started again
        raise AssertionError("it does not end")

    def check_settled(self) -> None:
        """Everything is answered and nothing is left."""
        assert not [asked.number for asked in self.asked.values() if self.is_open(asked)], "no final response"
        assert len(self.core.requests) == 0
        assert not self.core.requests.held_regions()
        assert not self.memory, "blocks that nobody will give back"
        for each in self.core.models.values():
            for version in each.all_versions():
                assert not version.pins
                assert not version.executing
                assert not version.calls

    def state(self, name: str) -> tuple[str, str]:
        """State and reason of a model's version 1."""
        version = self.core.models[name].versions[1]
        return version.state.value, version.reason


__all__ = ["COMPLETE", "EnsembleWorld", "Step", "ensemble", "instances", "model", "specs"]
