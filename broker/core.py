"""The broker's decisions: events in, effects out. No sockets, no clock, no processes, no files.

Rule 1: everything that affects what the server does is state of this object or of the parts it owns.
Rule 2: every accepted request gets exactly one final response, whatever arrives, dies, times out or is cancelled.
"""

import itertools
import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

from broker import answers, cache_metrics, health, loading, metrics, residency_metrics
from broker.client_regions import ClientRegions
from broker.compositions import Compositions
from broker.control import Control
from broker.custom_metrics import CustomMetrics
from broker.effects import ConfigureLog, Effect, Emit, Exit, Kill, Send, Start
from broker.fleet import Fleet
from broker.limited import LimitedRequests
from broker.log_settings import LogSettings
from broker.messages import (
    PROTOCOL,
    Answer,
    Beat,
    CachedRead,
    CacheFound,
    CacheStored,
    Cancel,
    ChangeMetric,
    Consumed,
    DeclareMetric,
    Delivered,
    Directory,
    DropMetric,
    ErrorCode,
    Executed,
    ForgetModel,
    GetArchives,
    GetLabels,
    GetLoading,
    GetMetrics,
    GetMetricValue,
    GetModelConfig,
    GetModelMetadata,
    GetModelReady,
    GetRegionStatus,
    GetRepositoryIndex,
    GetServerReady,
    GetStatistics,
    Hello,
    Infer,
    Kept,
    Loaded,
    LoadFailed,
    LoadMeasured,
    LoadModel,
    LoadProgress,
    Log,
    MemorySampled,
    Message,
    ModelConsidered,
    ModelDescribed,
    ModelRejected,
    ModelRemoved,
    PathUnused,
    ProtocolError,
    ReadyChecked,
    RegionClosed,
    RegionDropped,
    RegionOpened,
    RegisterRegion,
    RepositoryListed,
    RepositoryScanned,
    Responded,
    Sample,
    Serving,
    SetVerbosity,
    Stop,
    TensorsTraced,
    UnloadModel,
    UnregisterRegion,
    UpdateLogSettings,
    UpdateTraceSettings,
    WarmedUp,
    Welcome,
)
from broker.models import Instance, InstanceState, Model, VersionState, back_off
from broker.observer import RequestObserver
from broker.on_demand import OnDemand
from broker.rate_limiter import RateLimiter
from broker.readiness import Readiness
from broker.regions import Regions
from broker.remote_cache import RemoteCache
from broker.requests import Death, Requests
from broker.response_cache import ResponseCache
from broker.roles import READERS, SENT
from broker.scaler import Scaler
from broker.tracing import Tracing
from broker.validation import Rejected
from configs import metrics_config, rate_limit, trace
from configs.description import Environment, ModelDescription
from configs.server import ServerConfig

LOAD_PHASES = frozenset({"load", "warm-up", "ready"})
TICK_SECONDS = 1.0
SILENCE_SECONDS = 10.0
"""A peer that owes a beat for this long is stuck: it is killed."""
FRONTEND_SILENCE_SECONDS = 30.0
"""The same for frontends, whose libraries may hold the interpreter for seconds over a message of 1 GiB."""
START_SECONDS = 60.0
"""A process that has not said hello for this long is stuck."""
STOPPED_SECONDS = 1.0
"""A process that is seen stopped (state T) for this long is killed."""

Handler: TypeAlias = Callable[["Peer", Any, float], None]
"""Does what a message asks for. Raises ProtocolError."""


@dataclass(slots=True)
class Peer:
    """A child process as the core knows it."""

    token: str
    role: str
    name: str
    handlers: dict[type[Any], Handler]  # what it may send now
    started: float = math.inf
    pid: int = 0
    has_greeted: bool = False  # it has said Hello
    silence: int = 0  # our ticks since its last sign of life: time in which we were stopped does not count
    stopped_since: float | None = None
    is_killed: bool = False
    is_told_to_stop: bool = False
    is_prepared: bool = False  # its environment may have to be built before it can say Hello


@dataclass(frozen=True, slots=True)
class Frontends:
    """How many processes of each kind serve, and the options that they are told."""

    counts: dict[str, int]
    options: dict[str, Any]


class Core:
    """Everything the broker decides. Each event method returns the effects that it calls for, in order."""

    def __init__(self, config: ServerConfig, frontends: Frontends, epoch_offset: float, memory: int = 0) -> None:
        """`epoch_offset` turns seconds of the monotonic clock into seconds since the epoch.

        `memory` is how many bytes models may take together while they load, 0: any amount.
        """
        self.config = config
        self.models: dict[str, Model] = {}
        self.peers: dict[str, Peer] = {}
        self.is_started = False  # every model of the first scan has loaded or failed
        self._frontends = frontends
        self._out: list[Effect] = []
        self._tokens = itertools.count(1)
        self._client_regions = ClientRegions()
        self._tracing = Tracing(trace.parse(config.trace_config), seed=int(epoch_offset * 1e6))
        self._log_settings = LogSettings(config)
        self._observer = RequestObserver(self._tracing, config.log_access, epoch_offset, self._out)
        self._cache = self._make_cache()
        self._regions = Regions()
        limiter = RateLimiter(rate_limit.parse(config.rate_limit_resource)) if config.rate_limit != "off" else None
        around = (self.models, self._client_regions, self._regions, self._out, self._observer, self._cache)
        self.requests = Requests(*around) if limiter is None else LimitedRequests(limiter, *around)
        self.fleet = Fleet(self.models, self.requests, config, self._out, self._launch, limiter)
        self.fleet.turns = loading.Turns(loading.Limits(config.model_load_thread_count, memory))
        self._compositions = Compositions(self.fleet, self._out)
        self.control = Control(self.fleet, config.model_control_mode == "explicit", self._out, config.load_model)
        self.on_demand = OnDemand(self.fleet, self.requests, config, epoch_offset)
        self._census = self.on_demand.census
        self._scaler = Scaler(self.fleet, self._census)
        self._custom_metrics = CustomMetrics()
        self._readiness = Readiness(self._out)
        self._callers: set[str] = set()  # workers whose models call others: they read and are read as frontends
        self._handlers = self._handlers_by_role()
        self._directory = Directory({}, {"": config.shm("")})
        self._memory: dict[int, int] = {}
        self._system: dict[str, Any] = {}
        self._next_sample = 0.0
        self._now = 0.0
        self._is_scanned = False
        self._serving: set[str] = set()  # the roles of frontends that have taken requests
        self._deaths: dict[str, int] = {}  # quick deaths by the name of a process that is no worker
        self._restarts: list[tuple[float, str, str]] = []  # due, role, name
        self._next_tick = 0.0
        self._drain_due: float | None = None  # told to end, serving on until then
        self._exit_deadline: float | None = None
        self._exit_status = 0

    # ------------------------------------------------------------------------------------------- events

    def begin(self, now: float) -> list[Effect]:
        """Start the frontends and the repository process."""
        self._next_tick = now + TICK_SECONDS
        for role, count in self._frontends.counts.items():
            for number in range(count):
                self._launch(role, f"{role}_{number}")
        self._launch("repository", "repository")
        if isinstance(self._cache, RemoteCache):
            self._launch("cache", "cache")
        return self._take(now)

    def started(self, token: str, pid: int, now: float) -> None:
        """A process that the core asked for is running."""
        self.peers[token].pid = pid
        self.peers[token].started = now

    def handle(self, token: str, messages: Iterable[Message], now: float) -> list[Effect]:
        """Messages have arrived from one peer. If it breaks the protocol it is killed, and not listened to any more."""
        peer = self.peers.get(token)
        if peer is None or peer.is_killed:
            return []
        if peer.has_greeted:
            peer.silence = 0
        self._now = now
        try:
            for message in messages:
                handler = peer.handlers.get(type(message))
                if handler is None:
                    raise ProtocolError(_not_for(peer, message))
                handler(peer, message, now)
        except ProtocolError as error:
            return self.malformed(token, str(error), now)
        return self._take(now)

    def malformed(self, token: str, error: str, now: float) -> list[Effect]:
        """A peer has sent something that is no message of ours."""
        peer = self.peers.get(token)
        if peer is not None:
            self._kill(peer, f"has broken the protocol: {error}")
        return self._take(now)

    def lost(self, token: str, death: Death, now: float) -> list[Effect]:
        """A process is gone; it has been reaped, so nothing of it can happen any more."""
        peer = self.peers.pop(token)
        if peer.role == "worker":
            if token in self._callers:
                self._callers.discard(token)
                if self._cache is not None:
                    self._cache.frontend_lost(token)
                caches = self._tokens_of("cache")
                self._out += self._regions.caller_lost(
                    token, [*self._tokens_of("worker"), *caches], {*self._callers, *caches}
                )
                self.on_demand.peer_lost(token)
                self.requests.frontend_lost(token, now)
            self._regions.worker_lost(token)
            if self._cache is not None:
                self._cache.worker_lost(token)
            self._custom_metrics.worker_lost(token)
            self._readiness.worker_lost(token)
            self._readiness.frontend_lost(token)
            self.fleet.lost(token, death, now)
            self.on_demand.hurry()
        else:
            if peer.role in READERS:
                if self._cache is not None:
                    self._cache.frontend_lost(token)
                self._out += self._regions.frontend_lost(token, self._tokens_of("worker", "cache"))
                self.on_demand.peer_lost(token)
                self.requests.frontend_lost(token, now)
                self._readiness.frontend_lost(token)
                self._observer.frontend_lost(token)
            if peer.role == "cache":
                self._cache_lost(token, now)
            if peer.role == "repository":
                self._observer.repository = None
                self.control.repository_lost()
            if self._exit_deadline is None:
                self._restart(peer, death, now)
        return self._take(now)

    def is_awaiting(self, region: str) -> bool:
        """Whether a frontend may still open this region of a dead worker."""
        return self._regions.is_awaited(region)

    def unreachable(self, token: str, now: float) -> list[Effect]:
        """A message to a living process could not be sent: its connection is gone."""
        peer = self.peers.get(token)
        if peer is not None and peer.has_greeted:
            self._kill(peer, "has closed its connection")
        return self._take(now)

    def observe(self, stopped: Collection[str], now: float) -> list[Effect]:
        """Which processes are in state T (stopped by a signal), about once a second."""
        for token, peer in self.peers.items():
            if token not in stopped:
                peer.stopped_since = None
            elif peer.stopped_since is None:
                peer.stopped_since = now
            elif now - peer.stopped_since >= STOPPED_SECONDS:
                self._kill(peer, "is stopped (SIGSTOP)")
        return self._take(now)

    def tick(self, now: float) -> list[Effect]:
        """Time has passed."""
        self.requests.tick(now)
        self.fleet.tick(now)
        self._readiness.tick(now)
        repository = self._repository() if self._census.wants_sample(now) else None
        if repository is not None:
            self._sample(repository, now)
        due = [entry for entry in self._restarts if entry[0] <= now]
        self._restarts = [entry for entry in self._restarts if entry[0] > now]
        for _, role, name in due:
            self._launch(role, name)
        if now >= self._next_tick:
            self._next_tick = now + TICK_SECONDS
            self.requests.refuse_outages(now)
            self.on_demand.tick(now)
            self._scaler.tick(now)
            self._observer.tick(now)
            self._look_for_silence(now)
        if self._drain_due is not None and now >= self._drain_due:
            self._drain("drain delay over", now)
        if self._exit_deadline is not None and now >= self._exit_deadline:
            self._out += [Emit("E", "Exit timeout expired. Exiting immediately."), Exit(1)]
        return self._take(now)

    def next_deadline(self) -> float:
        """When `tick` should be called at the latest."""
        deadlines = [self._next_tick, self.requests.next_deadline(), self.fleet.next_deadline(), self._exit_deadline]
        deadlines += [each.next_deadline() for each in (self._readiness, self.on_demand, self._census)]
        deadlines.append(self._drain_due)
        deadlines += [due for due, _, _ in self._restarts]
        return min(deadline for deadline in deadlines if deadline is not None)

    def drain(self, reason: str, now: float, delay: float = 0.0) -> list[Effect]:
        """End the server: not ready, finish what is under way, stop all processes, exit.

        With a `delay` it serves on for so many seconds, in which whoever sends requests can see that it is not ready.
        """
        if self._exit_deadline is not None or (delay and self._drain_due is not None):
            return self._take(now)
        if delay and self.is_started:
            self._drain_due = now + delay
            self._out.append(Emit("I", f"{reason}: not ready any more, serving for another {delay:g} s"))
        else:
            self._drain(reason, now)
        return self._take(now)

    def _drain(self, reason: str, now: float) -> None:
        self._drain_due = None
        self._out.append(Emit("I", f"{reason}: draining, {len(self.requests)} request(s) under way"))
        self._begin_exit(0, now)

    @property
    def is_ready(self) -> bool:
        """What `/v2/health/ready` says."""
        if not self.is_started or self._drain_due is not None or self._exit_deadline is not None:
            return False
        if not self.config.strict_readiness or self.config.model_control_mode == "on-demand":
            return True
        return all(health.is_ready(model) or model.is_newcomer for model in self.models.values())

    def _health(self, question: GetServerReady) -> dict[str, Any]:
        answer = {"live": self._exit_deadline is None, "ready": self.is_ready}
        if not question.is_verbose:
            return answer
        reason = "draining" if self._drain_due is not None else "" if self.is_started else "loading"
        return {**answer, **({"reason": reason} if reason else {}), "models": health.report(self.models.values())}

    # ------------------------------------------------------------------------------------------- messages

    def _handlers_by_role(self) -> dict[str, dict[type[Any], Handler]]:
        """What is done about each message that a peer of a role may send."""
        questions = {kind: self._asked(answer) for kind, answer in self._questions_by_message().items()}
        handlers = {**self._handlers_by_message(), **questions}
        return {role: {kind: handlers[kind] for kind in kinds} for role, kinds in SENT.items()}

    def _asked(self, answer: Callable[[Any], Any]) -> Handler:
        return lambda peer, message, now: self._reply(peer, message.request, lambda: answer(message))

    def _handlers_by_message(self) -> dict[type[Any], Handler]:
        """What is done about each message; who may send it is in `roles`."""
        requests, fleet, instance = self.requests, self.fleet, self._instance
        return {
            Infer: self._infer,
            Cancel: self._cancel,
            Consumed: lambda peer, message, now: requests.consumed(peer.token, message),
            CachedRead: self._cached_read,
            CacheFound: lambda peer, message, now: requests.found(message, now),
            CacheStored: self._cache_stored,
            Kept: lambda peer, message, now: requests.kept(instance(peer), message),
            Delivered: lambda peer, message, now: self._observer.delivered(peer.token, message),
            TensorsTraced: lambda peer, message, now: requests.tensors(instance(peer), message),
            Executed: self._executed,
            Responded: self._responded,
            Beat: self._beat,
            Serving: lambda peer, message, now: self._serving.add(peer.role),
            RegionOpened: self._region_opened,
            RegionClosed: self._region_closed,
            RegionDropped: lambda peer, message, now: self._do(self._regions.dropped(peer.token, message.name)),
            Loaded: lambda peer, message, now: fleet.loaded(instance(peer), message, now),
            WarmedUp: self._warmed_up,
            LoadProgress: self._load_progress,
            LoadFailed: lambda peer, message, now: fleet.load_failed(instance(peer), message, now),
            Log: self._log,
            ModelDescribed: lambda peer, message, now: fleet.apply(_description(message.description), now),
            ModelRejected: self._rejected,
            ModelRemoved: lambda peer, message, now: fleet.remove(message.model, now),
            RepositoryScanned: self._scanned,
            RepositoryListed: self._listed,
            ModelConsidered: lambda peer, message, now: self.control.considered(message),
            LoadModel: self._load,
            UnloadModel: self._unload,
            MemorySampled: self._sampled,
            GetModelReady: self._model_ready,
            ReadyChecked: lambda peer, message, now: self._readiness.checked(peer.token, message),
            DeclareMetric: self._declare_metric,
            ChangeMetric: lambda peer, message, now: self._custom_metrics.change(message),
            DropMetric: lambda peer, message, now: self._custom_metrics.drop(peer.token, message),
        }

    def _questions_by_message(self) -> dict[type[Any], Callable[[Any], Any]]:
        """How each question is answered; a Rejected that is raised becomes the answer's error."""
        models = self.models
        return {
            GetServerReady: self._health,
            GetLoading: lambda _: loading.report(models, self._now),
            GetModelMetadata: lambda q: answers.metadata(models, q.model, q.version),
            GetModelConfig: lambda q: answers.look_up(models, q.model, q.version).description.config,
            GetLabels: lambda q: answers.labels(models, q.model, q.version),
            GetStatistics: lambda q: answers.statistics(models, q.model, q.version),
            GetRepositoryIndex: self.control.index,
            GetArchives: lambda _: self.control.archives.by_model(),
            UpdateTraceSettings: lambda q: self._tracing.update(q, models),
            UpdateLogSettings: self._update_log,
            GetMetrics: lambda _: self._metrics(),
            RegisterRegion: lambda q: self._do(self._client_regions.register(q, self._tokens_of("worker"))),
            UnregisterRegion: lambda q: self._do(self._client_regions.unregister(q, self._tokens_of("worker"))),
            GetRegionStatus: self._client_regions.status,
            GetMetricValue: self._custom_metrics.value,
        }

    def _infer(self, peer: Peer, message: Infer, now: float) -> None:
        caller = self.fleet.workers.get(peer.token)
        if caller is not None and peer.token not in self._callers:
            self._callers.add(peer.token)
            workers = self._tokens_of("worker")
            self._out += self._regions.joined(peer.token, [*workers, *self._tokens_of("cache")])
            self._out.append(Send(peer.token, self._directory))
            for worker in workers:
                self._out += self._regions.joined(worker, [peer.token])
        if self.fleet.cold and self.on_demand.hold(peer.token, message, caller, now):
            return
        self.requests.accept(peer.token, message, now, caller)

    def _cancel(self, peer: Peer, message: Cancel, now: float) -> None:
        self.on_demand.cancel(peer.token, message.request, now)
        self.requests.cancel(peer.token, message.request, now)

    def _executed(self, peer: Peer, message: Executed, now: float) -> None:
        instance = self._instance(peer)
        self.requests.executed(instance, message, now)
        self.fleet.executed(instance, now)

    def _responded(self, peer: Peer, message: Responded, now: float) -> None:
        instance = self._instance(peer)
        self.requests.responded(instance, message, now)
        self.fleet.executed(instance, now)

    def _make_cache(self) -> ResponseCache | RemoteCache | None:
        match self.config.cache.name:
            case "local":
                return ResponseCache(self.config.cache.byte_size, self._out)
            case "redis":
                return RemoteCache(self._out)
            case _:
                return None

    def _cache_stored(self, _peer: Peer, message: CacheStored, _now: float) -> None:
        if isinstance(self._cache, RemoteCache):
            self._cache.stored(message)

    def _cache_lost(self, token: str, now: float) -> None:
        self._out += self._regions.caller_lost(token, (), ())
        self._regions.worker_lost(token)
        self.requests.cache_lost(now)

    def _cached_read(self, peer: Peer, message: CachedRead, _now: float) -> None:
        if self._cache is not None:
            self._cache.read(peer.token, message.entry)

    def _warmed_up(self, peer: Peer, message: WarmedUp, now: float) -> None:
        began, inputs_ready, outputs_computed, done = message.times
        runs_forward = 0 <= began <= inputs_ready <= outputs_computed <= done <= (now + 1) * 1e9
        if message.requests < 1 or not runs_forward:
            raise ProtocolError(f"{message} is no warm-up")
        epoch_ms = int((now + self._observer.epoch_offset) * 1000)
        self._instance(peer).version.statistics.warmed_up(message.requests, message.times, epoch_ms)

    def _load_progress(self, peer: Peer, message: LoadProgress, _now: float) -> None:
        instance, repository = self._instance(peer), self._repository()
        if message.phase not in LOAD_PHASES or message.byte_size < 0:
            raise ProtocolError(f"{message} is no progress")
        instance.phase = message.phase
        if message.byte_size and repository is not None:
            described = instance.version.description
            self._out.append(Send(repository, LoadMeasured(described.path, described.fingerprint, message.byte_size)))

    def _beat(self, peer: Peer, message: Beat, _now: float) -> None:
        if peer.role == "worker":
            instance = self._instance(peer)
            instance.shm_used, instance.shm_mapped = message.shm_used, message.shm_mapped

    def _region_opened(self, peer: Peer, message: RegionOpened, _now: float) -> None:
        self._do(self._regions.opened(peer.token, message.name, self._readers_of(peer)))

    def _region_closed(self, peer: Peer, message: RegionClosed, _now: float) -> None:
        self._do(self._regions.closed(peer.token, message.name, self._readers_of(peer)))

    def _log(self, peer: Peer, message: Log, _now: float) -> None:
        level = message.level if message.level in {"I", "W", "E", "V"} else "I"
        self._out.append(Emit(level, f"[{peer.name}] {message.text}"))

    def _scanned(self, _peer: Peer, _message: RepositoryScanned, _now: float) -> None:
        self._is_scanned = self.fleet.is_changed = True  # what is missing now is missing

    def _metrics(self) -> list[dict[str, Any]]:
        config = metrics_config.parse(self.config.metrics_config)
        own = metrics.families(self.models, self._memory, self._system, config, self._now)
        cache = self._cache if isinstance(self._cache, ResponseCache) else None
        memory = residency_metrics.families(self.models, self.fleet.workers.values(), self.on_demand)
        return own + cache_metrics.of_the_cache(cache) + memory + self._custom_metrics.families()

    def _model_ready(self, peer: Peer, question: GetModelReady, now: float) -> None:
        is_ready = answers.is_model_ready(self.models, question.model, question.version)
        version = answers.look_up(self.models, question.model, question.version) if is_ready else None
        executing = answers.executing(self.models, version) if version is not None else []
        asked = [each for each in executing if each.is_asked and not each.is_cold]
        if not asked:
            self._reply(peer, question.request, lambda: {"ready": is_ready})
        else:
            ready = [i for each in asked for i in each.instances if i.state is InstanceState.READY]
            self._readiness.ask(peer.token, question, ready, now)

    def _declare_metric(self, peer: Peer, message: DeclareMetric, _now: float) -> None:
        self._reply(peer, message.request, lambda: self._custom_metrics.declare(peer.token, message))

    def _update_log(self, question: UpdateLogSettings) -> dict[str, Any]:
        values = self._log_settings.values
        if self._log_settings.update(question.settings):
            self._out.append(ConfigureLog(self._log_settings.levels, values["log_format"]))
        if self.fleet.log_verbose != values["log_verbose_level"]:
            self.fleet.log_verbose = values["log_verbose_level"]
            self._out += [Send(token, SetVerbosity(self.fleet.log_verbose)) for token in self._tokens_of("worker")]
        return dict(values)

    def _rejected(self, _peer: Peer, message: ModelRejected, _now: float) -> None:
        is_new = message.model not in self.models
        self.fleet.reject(message.model, message.error)
        self.models[message.model].is_newcomer |= is_new and self._is_scanned

    def _listed(self, _peer: Peer, message: RepositoryListed, _now: float) -> None:
        self.control.listed, self.control.errors = message.models, message.errors

    def _load(self, peer: Peer, message: LoadModel, _now: float) -> None:
        if message.archive and peer.role != "sagemaker":
            raise ProtocolError(f"{peer.name} brings an archive")
        self.control.load(peer.token, message, self._repository())

    def _unload(self, peer: Peer, message: UnloadModel, now: float) -> None:
        unloaded = [message.model]
        self._reply(peer, message.request, lambda: unloaded.extend(self.control.unload(message, now)))
        repository = self._repository()
        if repository is not None:
            self._out += [Send(repository, ForgetModel(model)) for model in dict.fromkeys(unloaded)]

    def _repository(self) -> str | None:
        return next(iter(self._tokens_of("repository")), None)

    def _sampled(self, _peer: Peer, message: MemorySampled, now: float) -> None:
        self._memory, self._system = message.pss, message.system
        self.on_demand.sampled(message, now)

    def _do(self, effects: list[Effect]) -> None:
        self._out += effects

    def _greet(self, peer: Peer, hello: Hello, now: float) -> None:
        if hello.protocol != PROTOCOL or hello.role != peer.role:
            raise ProtocolError(f"a hello of protocol {hello.protocol} as {hello.role}")
        peer.has_greeted, peer.silence = True, 0
        peer.handlers = self._handlers[peer.role]
        if peer.role == "repository":
            self._observer.repository = peer.token
            self._out.append(Send(peer.token, self.control.watch(not self._is_scanned)))
        if peer.role == "worker":
            self.fleet.hello(peer.token, hello.pid)
            self._out += self._regions.joined(peer.token, [*self._tokens_of(*READERS), *self._callers])
            self._out += self._client_regions.joined(peer.token)
        elif peer.role == "cache" and isinstance(self._cache, RemoteCache):
            self._cache.joined(peer.token)
            self._out.append(Send(peer.token, Welcome({"cache": self.config.cache.options})))
            self._out += self._regions.joined(peer.token, self.fleet.workers)
        elif peer.role != "repository":
            self._out += [Send(peer.token, Welcome(self._frontends.options)), Send(peer.token, self._directory)]
            if peer.role in READERS:
                self._out += self._regions.joined(peer.token, [*self.fleet.workers, *self._tokens_of("cache")])

    def _reply(self, peer: Peer, request: int, content: Callable[[], Any]) -> None:
        try:
            answer = Answer(request, ErrorCode.OK, "", content())
        except Rejected as error:
            answer = Answer(request, error.code, str(error), None)
        self._out.append(Send(peer.token, answer))

    # ------------------------------------------------------------------------------------------- processes

    def _launch(
        self,
        role: str,
        name: str,
        visible_devices: str | None = "",
        environment: Environment | None = None,
        backend: str = "",
    ) -> str:
        """Have a process started; its token was never used before."""
        token = f"{role[0]}{next(self._tokens)}"
        self.peers[token] = Peer(token, role, name, {Hello: self._greet}, is_prepared=environment is not None)
        self._out.append(Start(token, role, name, visible_devices, environment, backend))
        return token

    def _restart(self, peer: Peer, death: Death, now: float) -> None:
        """At once the first time, and whenever something outside has killed a process that served."""
        quick = not peer.has_greeted or (now - peer.started < SILENCE_SECONDS and not death.is_outside)
        self._deaths[peer.name] = self._deaths.get(peer.name, 0) + 1 if quick else 1
        output = f"; last output: {' | '.join(death.last_lines)}" if death.last_lines else ""
        self._out.append(Emit("E", f"{peer.name} died, starting it again: {death.text}{output}"))
        self._restarts.append((now + back_off(self._deaths[peer.name]), peer.role, peer.name))

    def _kill(self, peer: Peer, why: str) -> None:
        if not peer.is_killed:
            peer.is_killed = True
            self._out += [Emit("W", f"{peer.name} (pid {peer.pid}) {why}: killing it"), Kill(peer.token)]

    def _look_for_silence(self, now: float) -> None:
        for peer in self.peers.values():
            peer.silence += 1
            seconds = peer.silence * TICK_SECONDS
            if not peer.has_greeted:
                if seconds > START_SECONDS and not peer.is_prepared:
                    self._kill(peer, "does not start")
            else:
                limit = FRONTEND_SILENCE_SECONDS if peer.role in READERS else SILENCE_SECONDS
                if seconds > limit and not self._is_busy(peer):
                    self._kill(peer, f"gives no sign of life for {limit:g} s")
        repository = self._repository()
        if repository is not None and now >= self._next_sample:
            self._sample(repository, now)

    def _sample(self, repository: str, now: float) -> None:
        self._next_sample = now + self.config.metrics_interval_ms / 1000
        pids = tuple(peer.pid for peer in self.peers.values() if peer.pid)
        self._out.append(Send(repository, Sample(pids)))

    def _is_busy(self, peer: Peer) -> bool:
        """A worker does not beat while it loads, executes or finalizes; the last has a limit of its own."""
        instance = self.fleet.workers.get(peer.token)
        if instance is None:
            return False
        return bool(instance.attempts) or instance.ready_at is None or instance.state is InstanceState.DRAINING

    def _readers_of(self, peer: Peer) -> list[str]:
        if peer.role == "cache":
            return [*self._tokens_of(*READERS), *sorted(self._callers)]
        if peer.role != "worker":
            return self._tokens_of("worker")
        readers = self._tokens_of("worker") if peer.token in self._callers else sorted(self._callers)
        return [*self._tokens_of(*READERS, "cache"), *readers]

    def _tokens_of(self, *roles: str) -> list[str]:
        """The peers of these roles that have said hello."""
        return [token for token, peer in self.peers.items() if peer.role in roles and peer.has_greeted]

    def _instance(self, peer: Peer) -> Instance:
        instance = self.fleet.workers.get(peer.token)
        if instance is None:
            raise ProtocolError(f"{peer.name} is no worker")
        return instance

    # ------------------------------------------------------------------------------------------- after each event

    def _take(self, now: float) -> list[Effect]:
        """Everything that the event called for, after the consequences that hold after any event."""
        self.requests.dispatch_touched(now)
        if (
            self.is_started
            and self._exit_deadline is None
            and not self.fleet.is_changed
            and not self.control.is_waiting
            and not self.fleet.unused_paths
            and not self._regions.has_orphans
            and not self.requests.wanted
        ):
            effects, self._out[:] = self._out[:], []
            return effects
        if self.fleet.is_changed:
            self._compositions.settle(self._is_scanned, now)
            self._publish_directory()
            self.on_demand.hurry()
        if self.requests.wanted:
            self.on_demand.settle(now)
            self.requests.dispatch_touched(now)
        self.control.settle(now)
        if self.fleet.unused_paths:
            self._release_paths()
        if self._regions.has_orphans:
            self._out += self._regions.close_orphans(
                [*self._tokens_of(*READERS, "cache"), *self._callers], self.requests.held_regions()
            )
        if not self.is_started and self._is_scanned:
            self._check_started(now)
        if self._exit_deadline is not None:
            self._advance_exit(now)
        effects, self._out[:] = list(self._out), []
        return effects

    def _release_paths(self) -> None:
        repository = self._repository()
        if repository is not None:
            paths, self.fleet.unused_paths = self.fleet.unused_paths, []
            self._out += [Send(repository, PathUnused(path)) for path in paths]

    def _publish_directory(self) -> None:
        self.fleet.is_changed = False
        described = [m.description for m in self.models.values() if m.description is not None]
        backends = {d.name: d.backend for d in described}
        arenas = {b: self.config.shm(b) for b in {"", *backends.values()}}
        newest = [version.description for model in self.models.values() if (version := model.newest_ready())]
        decoupled = {d.name for d in (*described, *newest) if d.decoupled}
        self._directory = Directory(backends, arenas, tuple(sorted(decoupled)), self._cached())
        self._out += [Send(token, self._directory) for token in [*self._tokens_of(*READERS), *sorted(self._callers)]]

    def _cached(self) -> tuple[str, ...]:
        """The models whose responses may be cached; what others have answered is forgotten."""
        if self._cache is None:
            return ()
        versions = {version for model in self.models.values() for version in model.versions.values()}
        self._cache.retain(versions)
        return tuple(sorted({version.model for version in versions if version.is_cached}))

    def _check_started(self, now: float) -> None:
        versions = [v for model in self.models.values() for v in model.versions.values()]
        if any(version.state is VersionState.LOADING for version in versions):
            return
        if self._serving < {role for role, count in self._frontends.counts.items() if count}:
            return
        self.is_started = True
        failed = [m.name for m in self.models.values() if m.rejected]
        failed += [v.model for v in versions if v.state is VersionState.UNAVAILABLE]
        if failed and self.config.exit_on_error and self._exit_deadline is None:
            self._out.append(Emit("E", f"creating server: Internal - failed to load all models: {', '.join(failed)}"))
            self._begin_exit(1, now)

    def _begin_exit(self, status: int, now: float) -> None:
        self._exit_deadline = now + self.config.exit_timeout_secs
        self._exit_status = status
        self.requests.is_stopping = True
        self.on_demand.stop(now)

    def _advance_exit(self, now: float) -> None:
        """Requests first, then workers, then everybody else."""
        if len(self.requests) or self.on_demand.is_holding:
            return
        self.fleet.stop(now)
        if self.fleet.workers:
            return
        self._observer.flush()
        if not self.peers:
            self._out.append(Exit(self._exit_status))
        for peer in self.peers.values():
            if not peer.is_told_to_stop:
                peer.is_told_to_stop = True
                self._out.append(Send(peer.token, Stop("exit")) if peer.has_greeted else Kill(peer.token))


def _not_for(peer: Peer, message: Message) -> str:
    kind = type(message).__name__
    return f"{kind} is not for a process of the role {peer.role}" if peer.has_greeted else f"{kind} before its Hello"


def _description(wire: dict[str, Any]) -> ModelDescription:
    try:
        return ModelDescription.from_wire(wire)
    except (KeyError, TypeError, ValueError) as error:
        raise ProtocolError(f"no model description: {error!r}") from None
