"""A fake world around the core: processes that live and die, messages under way, and a book that checks every effect.

Nothing here decides anything. A test moves the world (`ask`, `begin`, `finish`, `die`, `bury`, `advance` ...) and the
world holds whatever the core then says against the promises that it makes: one final response for each request, never
while somebody may still read its inputs, no batch that its model cannot take, no region unlinked under its readers.
"""

import json
from collections import deque
from collections.abc import Collection
from typing import Any

from broker.core import Core, Frontends
from broker.effects import Effect, Emit, Exit, Kill, Send, Start, Unlink
from broker.messages import (
    COMPLETE,
    NOBODY,
    PROTOCOL,
    Abandon,
    Beat,
    CacheFound,
    CacheGet,
    Cancel,
    Consumed,
    Credit,
    ErrorCode,
    Execute,
    Executed,
    Hello,
    Infer,
    Item,
    Load,
    Loaded,
    LoadFailed,
    Message,
    ModelDescribed,
    ModelRejected,
    ModelRemoved,
    Part,
    PeerGone,
    RegionClosed,
    RegionDropped,
    RegionOpened,
    RepositoryScanned,
    Responded,
    Response,
    Result,
    Serving,
    Stop,
)
from broker.models import Instance, InstanceState, Version, VersionState
from broker.requests import MAX_KILLS, OUTAGE_SECONDS, Death
from configs.description import ModelDescription
from configs.server import ServerConfig
from shm.ref import TensorRef

READERS = ("http", "grpc", "sagemaker")
SERVER = "s"


class Record:
    """What the world knows about one request."""

    def __init__(self, peer: str, infer: Infer, is_valid: bool) -> None:
        self.peer = peer
        self.infer = infer
        self.is_valid = is_valid
        self.version: Version | None = None  # that took it in
        self.is_ordered = False
        self.responses: list[Response] = []
        self.parts = 0  # that its model has sent and the core has seen
        self.worker = ""  # that the core has given it to
        self.attempt = 0
        self.item = 0
        self.crashes = 0
        self.kills = 0
        self.is_stream = False  # executed, and still open
        self.is_cancelled = False
        self.is_orphan = False
        self.has_called = False  # its execution has called another model
        self.allowed: set[ErrorCode] = set()  # errors that something has given reason for

    @property
    def is_answered(self) -> bool:
        """It has had its final response."""
        return bool(self.responses) and bool(self.responses[-1].part & Part.FINAL)


class Process:
    """A child, as it really is."""

    def __init__(self, start: Start) -> None:
        self.token = start.peer
        self.role = start.role
        self.name = start.name
        self.is_alive = True
        self.is_doomed = False  # the core has it killed
        self.is_stopped = False  # by SIGSTOP
        self.has_greeted = False  # and the core knows
        self.is_loaded = False  # and the core knows
        self.is_told_to_stop = False
        self.inbox: deque[Message] = deque()
        self.outbox: deque[Message] = deque()
        self.load: Load | None = None
        self.begun: Execute | None = None
        self.started = 0  # the status page
        self.holding: set[str] = set()  # ids of requests whose inputs it may read
        self.open_items: dict[tuple[int, int], str] = {}  # streams that go on after their execution
        self.lent: dict[str, str] = {}  # output blocks that are out -> their reader
        self.mapped: set[str] = set()  # regions of others

    @property
    def is_running(self) -> bool:
        """It can do something."""
        return self.is_alive and not self.is_stopped


class World:
    """The core and everything around it."""

    def __init__(self, frontends: dict[str, int] | None = None, **settings: Any) -> None:
        config = ServerConfig(
            **{"exit_on_error": False, "exit_timeout_secs": 600, "model_load_thread_count": 1000, **settings}
        )
        self.core = Core(config, Frontends(frontends or {"http": 1}, {"id": "test"}), 1.7e9)
        self.now = 1000.0
        self.processes: dict[str, Process] = {}
        self.ever: dict[str, Process] = {}
        self.records: dict[str, Record] = {}
        self.order: dict[int, list[Record]] = {}  # by version: what preserve_ordering promises
        self.versions: list[Version] = []  # kept alive, so that ids stay unique
        self.regions: dict[str, str] = {}  # files in /dev/shm -> owner
        self.log: list[str] = []
        self.exit_status: int | None = None
        self.last_attempt = 0
        self.numbers = 0
        self.blocks = 0
        self.apply(self.core.begin(self.now))

    # ------------------------------------------------------------------------------------------- effects

    def apply(self, effects: list[Effect]) -> None:  # noqa: C901  # one case per effect
        """Execute and check what the core wants, until the exit."""
        for effect in effects:
            if self.exit_status is not None:
                return
            match effect:
                case Send(peer, message):
                    self._check_sent(self.ever[peer], message)
                    if peer in self.processes:
                        self.processes[peer].inbox.append(message)
                case Start(peer):
                    assert peer not in self.ever, "a token is used twice"
                    self.processes[peer] = self.ever[peer] = Process(effect)
                    self.core.started(peer, len(self.ever), self.now)
                case Kill(peer):
                    if peer in self.processes:
                        self.processes[peer].is_doomed = True
                case Unlink(name):
                    self._check_unlink(name)
                    self.regions.pop(name, None)
                case Emit(_, text):
                    self.log.append(text)
                case Exit(status):
                    self.exit_status = status

    def _check_sent(self, process: Process, message: Message) -> None:
        match message:
            case Response():
                self._check_response(process, message)
            case Execute():
                self._check_execute(process, message)
            case Load():
                assert process.has_greeted
            case _:
                pass

    def _check_response(self, process: Process, response: Response) -> None:
        record = self.records[f"{process.token}/{response.request}"]
        assert process.token in self.processes, "a response to a dead frontend"
        assert not record.is_orphan
        assert not record.is_answered, "two final responses"
        record.responses.append(response)
        if not response.part & Part.FINAL:
            assert record.infer.request_id == response.parameters["id"], "another request's response"
            return
        holders = [p.token for p in self.processes.values() if p.is_alive and record.infer.request_id in p.holding]
        assert not holders, f"{holders} may still read the inputs"
        if response.code == ErrorCode.OK:
            assert record.infer.request_id == response.parameters["id"], "another request's response"
        else:
            self._check_error(record, response)
        if record.is_ordered:
            assert record.version is not None
            before = self.order[id(record.version)]
            before = before[: before.index(record)]
            assert all(r.is_answered or r.is_orphan for r in before), "out of order"

    def _check_error(self, record: Record, response: Response) -> None:
        code = ErrorCode(response.code)
        is_call = record.infer.attempt > 0
        if record.version is None or code in record.allowed or (is_call and code is ErrorCode.INVALID_ARG):
            return  # refused at once (`ask` looks at that), or for a reason that the world knows
        if code is ErrorCode.CANCELLED:
            assert record.is_cancelled
            return
        assert code is ErrorCode.UNAVAILABLE, response
        serving = [i for i in record.version.instances if i.state is InstanceState.READY]
        assert not serving, f"no reason for {response}"

    def _check_execute(self, process: Process, execute: Execute) -> None:
        assert execute.attempt > self.last_attempt, "an attempt number is used twice"
        self.last_attempt = execute.attempt
        assert process.token in self.processes, "work for the dead"
        assert process.is_loaded, "work for a worker that is not ready"
        assert not process.is_told_to_stop, "work for a worker that was told to stop"
        instance = self.core.fleet.workers[process.token]
        sequences = instance.version.sequences
        assert instance.state is InstanceState.READY or (sequences is not None and sequences.holds(instance))
        rows = [(index, item) for index, item in enumerate(execute.items) if item.reader != NOBODY]
        assert len(rows) == len(execute.items) or sequences is not None
        records = [self.records[item.request_id] for _, item in rows]
        for (index, item), record in zip(rows, records, strict=True):
            assert item.reader == record.peer
            record.item = index
            assert record.is_valid
            assert not record.is_answered, "work that is done"
            assert record.version is instance.version
            holders = [p.token for p in self.processes.values() if p.is_alive and item.request_id in p.holding]
            assert not holders, f"{item.request_id} goes to {process.token} while {holders} have it"
            record.worker, record.attempt = process.token, execute.attempt
        self._check_batch(records, execute.items, instance)
        process.holding.update(item.request_id for _, item in rows)

    def _check_batch(self, records: list[Record], items: tuple[Item, ...], instance: Instance) -> None:
        limit = instance.version.description.max_batch_size
        if len(items) > 1:
            assert sum(item.inputs[0].shape[0] for item in items) <= limit
            assert len({item.inputs[0].shape[1:] for item in items}) == 1, "unequal shapes"
            key = instance.version.description.batch_key
            somebodys = [item for item in items if item.reader != NOBODY]
            assert len({item.parameters.get(key) for item in somebodys}) == 1, "unequal keys"
            assert not any(record.crashes or record.kills for record in records), "company for a request that met death"

    def _check_unlink(self, name: str) -> None:
        owner = self.regions.get(name)
        assert owner not in self.processes, "the region of a living process"
        for process in self.processes.values():
            if process.is_alive and process.role in READERS and self.ever[owner or name].role == "worker":
                assert name not in process.mapped, f"{process.token} may still read {name}"

    def _version_of(self, process: Process) -> Version | None:
        instance = self.core.fleet.workers.get(process.token)
        return instance.version if instance is not None else None

    # ------------------------------------------------------------------------------------------- who there is

    def of(self, *roles: str) -> list[Process]:
        """The living processes of these roles."""
        return [p for p in self.processes.values() if p.role in roles and p.is_alive]

    @property
    def frontends(self) -> list[Process]:
        """Those that clients can reach."""
        return [p for p in self.of(*READERS) if p.has_greeted and p.is_running and not p.is_doomed]

    @property
    def workers(self) -> list[Process]:
        """All living workers."""
        return self.of("worker")

    def workers_of(self, model: str) -> list[Process]:
        """The living workers of a model."""
        return [p for p in self.workers if (v := self._version_of(p)) is not None and v.model == model]

    def open_records(self) -> list[Record]:
        """Requests that were accepted and have no final response yet."""
        return [r for r in self.records.values() if not r.is_answered and not r.is_orphan]

    # ------------------------------------------------------------------------------------------- messages

    def say(self, process: Process, *messages: Message) -> None:
        """A process sends something; it arrives with `deliver`."""
        process.outbox.extend(messages)

    def deliver(self, process: Process, count: int = 1000) -> None:
        """The core receives what a process has sent."""
        while process.outbox and count and self.exit_status is None:
            count -= 1
            message = process.outbox.popleft()
            self._note(process, message)
            self.apply(self.core.handle(process.token, [message], self.now))

    def _note(self, process: Process, message: Message) -> None:
        """What the core learns from a message."""
        peer = self.core.peers.get(process.token)
        if peer is None or peer.is_killed:
            return
        match message:
            case Hello():
                process.has_greeted = True
            case Loaded():
                process.is_loaded = True
            case Executed(attempt, results):
                items = [r for r in self.records.values() if (r.worker, r.attempt) == (process.token, attempt)]
                if results:
                    for record in items:
                        result = results[record.item]
                        self._note_result(record, result)
                        record.is_stream = not result.part and result.code == ErrorCode.OK
            case Responded(_, _, result):
                self._note_result(self.records[result.parameters["id"]], result)
            case _:
                pass

    def _note_result(self, record: Record, result: Result) -> None:
        if result.code != ErrorCode.OK:
            record.allowed.add(ErrorCode(result.code))
        if result.part & Part.CONTENT:
            record.parts += 1
        if result.part & Part.FINAL or result.code != ErrorCode.OK:
            record.worker = ""

    def hear(self, process: Process) -> None:  # noqa: C901  # one case per message
        """A process handles everything that it has received, up to the next Execute."""
        while process.inbox and process.is_running and process.begun is None:
            if isinstance(process.inbox[0], Execute):
                return
            message = process.inbox.popleft()
            match message:
                case Load():
                    process.load = message
                case RegionOpened(name):
                    if name in self.regions:
                        process.mapped.add(name)
                case RegionClosed(name):
                    process.mapped.discard(name)
                    self.say(process, RegionDropped(name))
                case PeerGone(peer):
                    process.lent = {block: reader for block, reader in process.lent.items() if reader != peer}
                case Response():
                    self._read(process, message)
                case Stop():
                    process.is_told_to_stop = True
                case CacheGet(number):
                    self.say(process, CacheFound(number, False, (), {}))
                case Abandon() | Credit():
                    pass
                case _:
                    pass

    def _read(self, frontend: Process, response: Response) -> None:
        """A frontend reads the outputs and gives their blocks back."""
        for ref in response.outputs:
            if ref.data is None:
                assert ref.region in frontend.mapped, f"{ref.region} cannot be read"
                for process in self.processes.values():
                    process.lent.pop(f"{ref.region}:{ref.offset}", None)

    # ------------------------------------------------------------------------------------------- repository

    def _tell(self, message: Message) -> None:
        (repository,) = [p for p in self.of("repository") if p.is_alive]
        self.say(repository, message)
        self.deliver(repository)

    def describe(self, description: ModelDescription) -> None:
        """The repository describes a model."""
        self._tell(ModelDescribed(description.to_wire()))

    def reject(self, model: str, error: str) -> None:
        """The repository cannot read a model's configuration."""
        self._tell(ModelRejected(model, error))

    def remove(self, model: str) -> None:
        """The repository does not find a model any more."""
        self._tell(ModelRemoved(model))

    def scanned(self) -> None:
        """The repository has seen everything."""
        self._tell(RepositoryScanned())

    # ------------------------------------------------------------------------------------------- processes

    def greet(self, process: Process) -> None:
        """A process is up."""
        self.say(process, Hello(PROTOCOL, process.role, 4711))
        if process.role in READERS:
            self._open_region(process)
        if process.role not in {"worker", "repository", "cache"}:
            self.say(process, Serving())
        self.deliver(process)

    def load(self, worker: Process, error: str = "", has_region: bool = True) -> None:
        """A worker has loaded its model, or not."""
        assert worker.load is not None
        worker.load = None
        if has_region:
            self._open_region(worker)
        self.say(worker, LoadFailed(ErrorCode.INTERNAL, error) if error else Loaded((), (), {}, False))
        self.deliver(worker)

    def _open_region(self, process: Process) -> None:
        name = f"tidepool-{SERVER}-{process.token}-0"
        self.regions[name] = process.token
        self.say(process, RegionOpened(name))

    def boot(self, process: Process) -> None:
        """A process comes up without trouble."""
        self.greet(process)
        self.hear(process)
        if process.load is not None:
            self.load(process)

    def start(self, *descriptions: ModelDescription, rejected: str = "") -> None:
        """The whole server comes up with these models, and one whose configuration cannot be read."""
        for process in list(self.processes.values()):
            self.boot(process)
        if rejected:
            self.reject(rejected, "config.pbtxt:1:1: nonsense")
        for each in descriptions:
            self.describe(each)
        self.scanned()
        for worker in self.workers:
            self.boot(worker)

    def die(self, process: Process) -> None:
        """A process ends; the core does not know yet."""
        process.is_alive = False

    def bury(self, process: Process, is_outside: bool = False, delivers: bool = True) -> None:
        """The core is told of a death; what the dead one has sent arrives before that, or is lost."""
        process.is_alive = False
        if delivers:
            self.deliver(process)
        process.outbox.clear()
        del self.processes[process.token]
        death = Death("killed by signal 9 (SIGKILL)", is_outside and not process.is_doomed, process.started, ())
        for record in self.records.values():
            if record.peer == process.token and not record.is_answered:
                record.is_orphan = True
        if process.role == "worker":
            self._bury_worker(process, death)
        else:
            self.apply(self.core.lost(process.token, death, self.now))
        for name in [name for name, owner in self.regions.items() if owner == process.token]:
            if not self.core.is_awaiting(name):
                self.apply([Unlink(name)])  # the server finds what was never announced

    def _bury_worker(self, process: Process, death: Death) -> None:
        verdicts: dict[str, ErrorCode] = {}
        for request_id, record in self.records.items():
            if record.worker == process.token and not record.is_answered:
                verdict = self._verdict(record, death)
                record.worker, record.is_stream = "", False
                if verdict is not ErrorCode.OK:
                    verdicts[request_id] = verdict
                    record.allowed.add(verdict)
        answered = {request_id for request_id, record in self.records.items() if record.is_answered}
        self.apply(self.core.lost(process.token, death, self.now))
        for request_id, record in self.records.items():
            if record.is_answered and request_id not in answered and record.is_valid:
                is_right = request_id in verdicts or record.is_ordered or self._is_out(record.version)
                assert is_right, "refused, and may be retried"
            if request_id in verdicts and not record.is_ordered and not record.is_orphan:
                assert record.is_answered, "a dead worker's request is forgotten"

    def _verdict(self, record: Record, death: Death) -> ErrorCode:  # noqa: PLR0911  # one rule per line
        """What has to become of a request that a dead worker held; OK: it runs again."""
        assert record.version is not None
        description = record.version.description
        is_retried = description.parameters.get("retry_on_crash") != "false" and not description.decoupled
        is_retried = is_retried and description.sequence_batching is None
        if record.is_stream:
            return ErrorCode.UNAVAILABLE
        if record.is_cancelled or record.is_orphan:
            return ErrorCode.CANCELLED
        if record.attempt > death.started:
            return ErrorCode.OK
        if not is_retried or record.parts or record.has_called:
            return ErrorCode.UNAVAILABLE
        if record.attempt < death.started:
            return ErrorCode.OK
        if death.is_outside:
            record.kills += 1
            return ErrorCode.OK if record.kills <= MAX_KILLS else ErrorCode.UNAVAILABLE
        record.crashes += 1
        return ErrorCode.OK if record.crashes == 1 else ErrorCode.UNAVAILABLE

    # ------------------------------------------------------------------------------------------- requests

    def ask(self, frontend: Process, infer: Infer, is_valid: bool = True) -> Record:
        """A request of a client, or of a worker whose model calls another, arrives at the core."""
        self.numbers += 1
        request_id = f"{frontend.token}/{self.numbers}"
        identity = infer.correlation_id or self.numbers  # a sequence of its own
        infer = infer._replace(request=self.numbers, request_id=request_id, received=self.now, correlation_id=identity)
        record = self.records[request_id] = Record(frontend.token, infer, is_valid)
        model = self.core.models.get(infer.model)
        version = model.newest_ready() if model is not None else None
        is_refused = self.core.requests.is_stopping and frontend.role != "worker"
        record.version = version if is_valid and not is_refused else None
        if self._is_out(record.version):
            record.version = None
        if record.version is not None and record.version.preserves_order and frontend.role != "worker":
            self.versions.append(record.version)
            record.is_ordered = True
            self.order.setdefault(id(record.version), []).append(record)
        self.deliver(frontend)
        self.say(frontend, infer)
        self.deliver(frontend)
        for waiting in self.records.values():
            if record.version is not None and (waiting.worker, waiting.attempt) == (frontend.token, infer.attempt):
                waiting.has_called = True
        if record.version is None:
            assert record.is_answered
            assert not record.is_answered or record.responses[0].code != ErrorCode.OK
        elif frontend.role != "worker":
            assert not record.is_answered, f"refused: {record.responses}"
        elif record.is_answered:
            assert record.responses[0].code == ErrorCode.INVALID_ARG, "only a call that could never be answered"
        return record

    def _is_out(self, version: Version | None) -> bool:
        """All its instances have been dead for long, and none is on its way; or it has failed to load."""
        if version is not None and version.state is VersionState.UNAVAILABLE:
            return True
        if version is None or version.down_since is None or self.now - version.down_since <= OUTAGE_SECONDS:
            return False
        return not {i.state for i in version.instances} & {InstanceState.STARTING, InstanceState.LOADING}

    def calls_of(self, worker: Process) -> list[Record]:
        """What the models that a worker executes have called, and wait for."""
        return [r for r in self.open_records() if r.peer == worker.token]

    def cancel(self, record: Record) -> None:
        """The client has gone."""
        record.is_cancelled = True
        frontend = self.processes[record.peer]
        self.say(frontend, Cancel(record.infer.request))
        self.deliver(frontend)

    def consume(self, record: Record) -> None:
        """The client has taken one response of a stream."""
        frontend = self.processes[record.peer]
        self.say(frontend, Consumed(record.infer.request, 1))
        self.deliver(frontend)

    def begin(self, worker: Process) -> Execute:
        """A worker hands its next batch to execute."""
        self.hear(worker)
        message = worker.inbox.popleft()
        assert isinstance(message, Execute)
        worker.begun, worker.started = message, message.attempt
        return message

    def finish(
        self, worker: Process, code: ErrorCode = ErrorCode.OK, seconds: float = 0.05, part: int = COMPLETE
    ) -> None:
        """The batch is done; its answers are on the way. Part.NONE leaves its requests open."""
        assert worker.begun is not None
        execute, worker.begun = worker.begun, None
        results = []
        for index, item in enumerate(execute.items):
            if item.request_id not in worker.holding:
                results.append(Result(ErrorCode.OK, "", (), {}, Part.NONE))  # answered by a response sender
            else:
                results.append(self._result(worker, item, code, part))
                if part == Part.NONE and code == ErrorCode.OK:
                    worker.open_items[execute.attempt, index] = item.request_id
        end = int(self.now * 1e9)
        begin = end - int(seconds * 1e9)
        self.say(worker, Executed(execute.attempt, tuple(results), (begin, begin, end, end)))

    def respond(self, worker: Process, attempt: int, index: int, part: int) -> None:
        """A model sends one response to a request that it has open."""
        items = worker.begun.items if worker.begun is not None and worker.begun.attempt == attempt else ()
        request_id = items[index].request_id if items else worker.open_items[attempt, index]
        self.say(worker, Responded(attempt, index, Result(ErrorCode.OK, "", (), {"id": request_id}, part)))
        if part & Part.FINAL:
            worker.holding.discard(request_id)
            worker.open_items.pop((attempt, index), None)

    def _result(self, worker: Process, item: Item, code: ErrorCode, part: int) -> Result:
        if part == Part.NONE and code == ErrorCode.OK:
            return Result(code, "", (), {}, part)
        worker.holding.discard(item.request_id)
        if code != ErrorCode.OK:
            return Result(code, "the model says no", (), {})
        self.blocks += 1
        region = f"tidepool-{SERVER}-{worker.token}-0"
        ref = TensorRef("OUT", "FP32", (2048,), 8192, None, region, self.blocks)
        outputs: tuple[TensorRef, ...] = (ref,) if self.blocks % 2 and region in self.regions else ()
        for ref in outputs:
            worker.lent[f"{ref.region}:{ref.offset}"] = item.reader
        return Result(code, "", outputs, {"id": item.request_id}, part)

    # ------------------------------------------------------------------------------------------- time

    def advance(self, seconds: float, silent: Collection[Process] = ()) -> None:
        """Time passes; processes whose loop turns send their beats."""
        end = self.now + seconds
        turns = 0
        while self.exit_status is None and (due := self.core.next_deadline()) <= end:
            turns += 1
            assert turns < 20 * seconds + 200, "the core asks to be called again and again"
            self.now = max(self.now, due)
            self._beat(silent)
            self.apply(self.core.tick(self.now))
            stopped = {p.token for p in self.processes.values() if p.is_stopped and p.is_alive}
            self.apply(self.core.observe(stopped, self.now))
        self.now = end

    def _beat(self, silent: Collection[Process]) -> None:
        for process in list(self.processes.values()):
            if process.has_greeted and process.is_running and process not in silent and process.begun is None:
                self.apply(self.core.handle(process.token, [Beat(0, 0)], self.now))

    # ------------------------------------------------------------------------------------------- ends

    def turn(self, process: Process) -> bool:  # noqa: C901, PLR0911  # one thing per line
        """A process does the next thing that it should do. False when it has nothing to do."""
        if not process.is_alive or process.is_doomed:
            self.bury(process, delivers=process.is_alive)
            return True
        if process.is_stopped:
            process.is_stopped = False
            return True
        if process.outbox:
            self.deliver(process)
            return True
        if not process.has_greeted:
            self.greet(process)
            return True
        if process.begun is not None:
            if self.calls_of(process):
                return False
            self.finish(process)
            return True
        if process.open_items:
            (attempt, index), _ = next(iter(process.open_items.items()))
            self.respond(process, attempt, index, COMPLETE)
            return True
        if process.inbox:
            self.hear(process)
            if process.inbox:
                self.begin(process)
            return True
        if process.load is not None:
            config = json.loads(process.load.config)
            self.load(process, error="it is broken" if config.get("broken") else "")
            return True
        if process.is_told_to_stop:
            self.bury(process)
            return True
        return False

    def settle(self, seconds: float = 120.0) -> None:
        """Let everything that is under way come to its end, without further trouble."""
        end = self.now + seconds
        while self.exit_status is None:
            has_moved = True
            while has_moved and self.exit_status is None:
                has_moved = False
                for process in list(self.processes.values()):
                    has_moved |= self.turn(process)
            if self.now >= end:
                return
            self.advance(0.5)

    def check_settled(self) -> None:
        """Nothing is left over: requests, instances, regions, entries of any table."""
        core = self.core
        left = [f"{r.infer.request_id} for {r.infer.model} at {r.worker or 'nobody'}" for r in self.open_records()]
        assert not left, f"requests without a final response: {', '.join(left)}"
        assert len(core.requests) == 0
        for model in core.models.values():
            assert not model.retiring, "a version that does not go away"
            assert not model.incoming, "a version that does not come"
            for version in model.versions.values():
                self._check_instances(version)
        expected = {i.peer for m in core.models.values() for v in m.all_versions() for i in v.instances if i.peer}
        assert {p.token for p in self.workers} == expected
        for worker in self.workers:
            assert not worker.holding
            assert not worker.lent, "output blocks that nobody will give back"
        assert set(self.regions.values()) <= set(self.processes), "regions of the dead"
        assert set(core.peers) == set(self.processes)
        assert not core.requests._timed, "versions that execute nothing are looked after"
        assert not core.fleet._stopping
        assert not core.control._considered

    def _check_instances(self, version: Version) -> None:
        if version.state.value != "READY":
            assert not any(instance.peer for instance in version.instances)
            return
        wanted = sorted(spec.signature for spec in version.wanted)
        staying = [i for i in version.instances if not i.is_leaving]
        assert sorted(i.spec.signature for i in staying) == wanted
        has_failed = any(i.state is not InstanceState.READY for i in staying)
        assert len(staying) == len(version.instances) or has_failed, "an instance does not leave"
        for instance in version.instances:
            assert instance.state in {InstanceState.READY, InstanceState.FAILED, InstanceState.WAITING}
        assert not version.scheduler or not version.is_ready
        assert version.executing == 0
        assert not version.order

    def check_ready(self) -> None:
        """`is_ready` says what is so."""
        core = self.core
        assert not core.is_ready or core.is_started
        if not core.is_started or core.requests.is_stopping:
            assert not core.is_ready
            return
        serving = {id(self._version_of(p)) for p in self.processes.values() if p.is_loaded and not p.is_told_to_stop}
        truth = all(m.versions and all(id(v) in serving for v in m.versions.values()) for m in core.models.values())
        assert not core.is_ready or truth, "not ready, and says that it is"
