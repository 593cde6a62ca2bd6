"""Models, their versions and instances as they run: state without I/O, changed only by the core."""

import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, cast

import msgspec

from broker.autoscaling import at_count
from broker.graph import Graph
from broker.request import Request
from broker.schedulers import Scheduler, SequenceScheduler, make
from broker.statistics import Statistics
from broker.validation import Signature, Validator
from configs import completion, residency
from configs.description import Instance as InstanceSpec
from configs.description import ModelDescription, TensorSpec
from configs.residency import Residency

PREFETCH_SECONDS = 0.001
"""A worker is given so much waiting work that it never idles while a message is under way."""
PREFETCH_LIMIT = 16
SLOW_SECONDS = 0.02
"""Executions of this length lose nothing to a message's way: nothing waits behind them."""
QUICK_DEATH_SECONDS = 10.0
"""A death this soon after ready counts towards the back-off."""
SERVICE_SECONDS = 30.0
"""After this long in service the back-off starts anew."""
MAX_BACK_OFF_SECONDS = 10.0
ASLEEP = "not in memory: the next request loads it"


class InstanceState(StrEnum):
    """`queued -> starting -> loading -> ready -> draining -> gone`; `waiting` for the back-off, `failed` for good."""

    QUEUED = "queued"
    WAITING = "waiting"
    STARTING = "starting"
    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"


COMING = frozenset({InstanceState.QUEUED, InstanceState.STARTING, InstanceState.LOADING})
"""States of an instance that is on its way to be ready, however long that takes."""


class VersionState(StrEnum):
    """Triton's states of a model version."""

    LOADING = "LOADING"
    READY = "READY"
    UNLOADING = "UNLOADING"
    UNAVAILABLE = "UNAVAILABLE"


class Attempt(msgspec.Struct):
    """One batch at one worker."""

    number: int
    requests: list[Request]
    sent: float


@dataclass(slots=True, eq=False)
class Instance:
    """One instance, and the worker process that hosts it now."""

    spec: InstanceSpec
    version: "Version"
    state: InstanceState = InstanceState.WAITING
    peer: str = ""
    pid: int = 0
    reason: str = ""
    is_leaving: bool = False  # it serves until those that replace it are ready
    attempts: dict[int, Attempt] = field(default_factory=dict)
    streams: dict[tuple[int, int], Request] = field(default_factory=dict)  # executed, but not answered finally
    calls: set[Request] = field(default_factory=set)  # that it makes of other models, not answered yet
    execution_seconds: float | None = None  # moving average of one execution
    capacity: int = 1  # how many batches the worker may hold, executing and waiting
    ready_at: float | None = None
    busy_since: float = 0.0
    quick_deaths: int = 0
    restarts: dict[str, int] = field(default_factory=dict)  # by cause
    turn: int = 0  # when the rate limiter lets it execute again
    shm_used: int = 0
    shm_mapped: int = 0
    asked_at: float = 0.0  # when it was to be there
    phase: str = ""  # of its load, see LoadProgress
    memory: dict[str, int] = field(default_factory=dict)  # its process's, by place (`residency`), when measured last
    is_measured: bool = False  # since it was ready

    @property
    def key(self) -> str:
        """The instance's name in messages to people: `digits_0_0`."""
        return self.spec.name

    @property
    def is_ready(self) -> bool:
        """It may be given anything."""
        return self.state is InstanceState.READY

    def executed(self, seconds: float) -> None:
        """An execution took so long: fast models may have more batches waiting."""
        average = self.execution_seconds
        self.execution_seconds = seconds if average is None else 0.8 * average + 0.2 * seconds
        if self.version.retries_started:  # else no answer may wait for the next execution, which may crash
            self.capacity = 1 + prefetch(self.execution_seconds)


def prefetch(execution_seconds: float | None) -> int:
    """How many batches may wait at a worker behind the one that it executes."""
    if execution_seconds is None or execution_seconds >= SLOW_SECONDS:
        return 0
    return min(PREFETCH_LIMIT, max(1, int(PREFETCH_SECONDS / max(execution_seconds, 1e-9))))


def back_off(quick_deaths: int) -> float:
    """Seconds to wait before the next start, after this many quick deaths in a row: the first restart is at once."""
    if quick_deaths <= 1:
        return 0.0
    return min(MAX_BACK_OFF_SECONDS, 0.5 * 2.0 ** min(quick_deaths - 2, 10))


@dataclass(slots=True, eq=False)
class Version:
    """One loaded (or loading) version of a model: the unit that requests go to."""

    model: str
    number: int
    description: ModelDescription
    scheduler: Scheduler
    signature: Signature
    state: VersionState = VersionState.LOADING
    reason: str = ""
    instances: list[Instance] = field(default_factory=list)
    statistics: Statistics = field(default_factory=Statistics)
    devices: dict[str, Statistics] = field(default_factory=dict)  # by GPU; "" is what none did; empty without any
    order: deque[Request] = field(default_factory=deque)  # unanswered, when preserve_ordering
    down_since: float | None = None
    executing: int = 0  # requests at workers
    completed: dict[str, Any] = field(default_factory=dict)  # fields of the configuration that its model has set
    is_asked: bool = False  # the model has a say in whether it is ready
    load_seconds: float = 0.0
    load_began: float | None = None
    calls: int = 0  # requests of other models that are not answered
    graph: Graph | None = None  # of an ensemble whose models are there
    parts_are_ready: Callable[[], bool] | None = None  # the models of an ensemble
    pins: int = 0  # requests to ensembles that go on to use it, also when it is being unloaded
    count: int | None = None  # wanted instances of each group, 0: none until a request comes; None: as described
    is_cold: bool = False  # it sleeps, or nothing of it has been ready since
    is_unread: bool = False  # it was never loaded: what it accepts is not known for sure
    residency: Residency = field(init=False)
    sequences: SequenceScheduler | None = field(init=False)  # the scheduler, if it binds requests to instances
    validator: Validator = field(init=False)
    execution_timeout: float | None = field(init=False)  # seconds after which an execution counts as hung; None: never
    is_cached: bool = field(init=False)  # its responses may be
    retries_started: bool = field(init=False)  # requests that a dead worker had begun may run once more

    def __post_init__(self) -> None:
        """What is derived from the signature and the parameters."""
        self.validator = Validator(self.signature)
        self._read_parameters()

    def _read_parameters(self) -> None:
        self.sequences = self.scheduler if isinstance(self.scheduler, SequenceScheduler) else None
        parameters = self.description.parameters
        timeout = parameters.get("execution_timeout_ms", "")
        self.execution_timeout = int(timeout) / 1000 if re.fullmatch("[0-9]{1,12}", timeout) and int(timeout) else None
        is_refused = parameters.get("retry_on_crash", "true").lower() in {"false", "off", "0"}
        self.retries_started = not is_refused and not self.description.decoupled and self.sequences is None
        cache = self.description.config.get("response_cache", {})
        self.is_cached = cache.get("enable", False) and not self.description.decoupled and not self.description.steps
        self.residency = residency.read(parameters)

    @staticmethod
    def create(description: ModelDescription, number: int) -> "Version":
        """A version that is to be loaded."""
        return Version(
            description.name,
            number,
            description,
            make(description),
            Signature(description.name, description.max_batch_size, description.inputs, description.outputs),
        )

    @property
    def is_ready(self) -> bool:
        """It serves: at least one instance is alive, or all models of an ensemble are ready; or it sleeps."""
        if self.state is VersionState.READY:
            for instance in self.instances:
                if instance.state is InstanceState.READY:
                    return True
            if self.is_cold:
                return True  # it is loaded when it is needed
            return self.parts_are_ready is not None and self.parts_are_ready()
        return False

    @property
    def is_coming(self) -> bool:
        """An instance is starting or loading: it will be ready, or fail."""
        return any(instance.state in COMING for instance in self.instances)

    @property
    def remark(self) -> str:
        """What people should know about its state."""
        return ASLEEP if self.is_cold and self.state is VersionState.READY else self.reason

    @property
    def first_count(self) -> int | None:
        """The count with which it wakes: the smallest of its range; None: as described."""
        return max(1, self.residency.min_count) if self.residency.max_count else None

    @property
    def wanted(self) -> tuple[InstanceSpec, ...]:
        """The instances that there should be now."""
        return self.at_count(self.count)

    def at_count(self, count: int | None) -> tuple[InstanceSpec, ...]:
        """The instances with so many in each group; None: as described."""
        specs = self.description.instances
        return specs if count is None else at_count(specs, count)

    @property
    def fingerprint(self) -> tuple[str, str]:
        """Changes exactly when the workers would have to load something else."""
        return self.description.fingerprint, self.description.version_fingerprints.get(self.number, "")

    @property
    def preserves_order(self) -> bool:
        """Responses leave in the order of the requests."""
        batching = self.description.dynamic_batching
        return batching is not None and batching.preserve_ordering

    def complete(self, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], completed: dict[str, Any]) -> None:
        """Take over what the worker found: inputs and outputs that the configuration does not declare, and fields of
        it that the model has set. Raises ConfigError."""
        completed = {**self.completed, **completed}  # a worker that comes later was told what the first one has found
        if completed != self.completed:
            completion.complete(self.description, completed)  # raises before anything is changed
            self.completed = completed
            self.reschedule(self.description)
        self.signature = self.signature._replace(
            max_batch_size=self.description.max_batch_size,
            inputs=_with(self.signature.inputs, inputs),
            outputs=_with(self.signature.outputs, outputs),
        )
        self.validator = Validator(self.signature)

    def share(self, worker: str) -> Statistics:
        """What is counted for the GPU of a worker (`""`: none), in a version that has any."""
        return self.devices[next((i.spec.device for i in self.instances if worker and i.peer == worker), "")]

    def reschedule(self, description: ModelDescription) -> None:
        """Go on under new scheduling settings; what waits is queued by them. Raises ConfigError."""
        if self.completed:
            description = completion.complete(description, self.completed)
        old = self.description
        if _scheduling(description) != _scheduling(old):
            queued = sorted(self.scheduler.drain(), key=lambda request: request.enqueued)
            self.scheduler = make(description)
            for request in queued:
                if not request.attempt:
                    self.scheduler.readmit(request)
            for request in reversed(queued):
                if request.attempt:  # a worker died with it: it stays before all others
                    self.scheduler.requeue(request)
        self.description = description
        self._read_parameters()

    def pick(self) -> Instance | None:
        """The ready instance with the least to do that may take another batch, or the one that the batch is for."""
        if self.sequences is not None:
            return cast("Instance | None", self.sequences.pick())
        best: Instance | None = None
        least = 0
        for instance in self.instances:
            held = len(instance.attempts)
            if instance.state is InstanceState.READY and held < instance.capacity and (best is None or held < least):
                best, least = instance, held
        return best


def _with(declared: tuple[TensorSpec, ...], found: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    """What the configuration declares, and behind it what it leaves out and the model has."""
    names = {spec.name for spec in declared}
    return (*declared, *[spec for spec in found if spec.name not in names])


def _scheduling(description: ModelDescription) -> tuple[object, ...]:
    return description.dynamic_batching, description.sequence_batching, description.max_batch_size


@dataclass(slots=True, eq=False)
class Model:
    """One model of the repository."""

    name: str
    description: ModelDescription | None = None
    versions: dict[int, Version] = field(default_factory=dict)  # serving, or failed at their first load
    incoming: dict[int, Version] = field(default_factory=dict)  # loading beside those that serve
    retiring: list[Version] = field(default_factory=list)  # finishing their requests
    rejected: str = ""  # what is wrong with the newest configuration
    failures: dict[int, str] = field(default_factory=dict)  # versions of the newest description that did not load
    unloaded: set[int] = field(default_factory=set)  # versions that a client has unloaded
    is_newcomer: bool = False  # found after the start, and not readable yet: nobody counts on it
    reloads: Counter[str] = field(default_factory=Counter)  # of what served, by outcome: applied, failed

    @property
    def is_served(self) -> bool:
        """A version of it takes requests, whatever becomes of a newer configuration."""
        return any(version.state is VersionState.READY for version in self.versions.values())

    def all_versions(self) -> Iterator[Version]:
        """Everything that has instances."""
        yield from self.versions.values()
        yield from self.incoming.values()
        yield from self.retiring

    def newest_ready(self) -> Version | None:
        """The version that serves requests which name none."""
        if len(self.versions) == 1:
            (only,) = self.versions.values()
            return only if only.state is VersionState.READY else None
        best: Version | None = None
        best_is_ready = False
        for version in self.versions.values():
            if version.state is VersionState.READY:
                is_ready = version.is_ready
                if best is None or (is_ready, version.number) > (best_is_ready, best.number):
                    best, best_is_ready = version, is_ready
        return best


@dataclass(slots=True)
class ScalePlan:
    """How to get from the running instances to the wanted ones."""

    keep: list[Instance]
    start: list[InstanceSpec]
    drain: list[Instance]


def plan_scale(running: Iterable[Instance], wanted: Sequence[InstanceSpec]) -> ScalePlan:
    """Match instances by what they are (device, group), not by name: exactly the difference starts or drains.

    Of equal ones those that are ready stay first, then those whose name is still wanted, then the first.
    """
    plan = ScalePlan([], [], [])
    names = {spec.name for spec in wanted}
    available: dict[str, list[Instance]] = {}
    for instance in sorted(running, key=lambda i: (i.state is not InstanceState.READY, i.spec.name not in names)):
        if instance.state is not InstanceState.DRAINING:
            available.setdefault(instance.spec.signature, []).append(instance)
    for signature, specs in _by_signature(wanted).items():
        same = available.pop(signature, [])
        keep, surplus = same[: len(specs)], same[len(specs) :]
        kept = {instance.spec.name for instance in keep}
        plan.keep += keep
        plan.start += [spec for spec in specs if spec.name not in kept][: len(specs) - len(keep)]
        plan.drain += surplus
    for unwanted in available.values():
        plan.drain += unwanted
    return plan


def _by_signature(specs: Sequence[InstanceSpec]) -> dict[str, list[InstanceSpec]]:
    groups: dict[str, list[InstanceSpec]] = {}
    for spec in specs:
        groups.setdefault(spec.signature, []).append(spec)
    return groups
