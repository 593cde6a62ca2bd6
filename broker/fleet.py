"""Which instances there should be: models come, change, scale and go, workers start, die and start again. Pure.

What a new description asks for is reached by the smallest change: scheduling settings apply in place, `count` starts
or drains the difference, anything else loads new versions beside the old, which go on serving until these are ready.
"""

import json
from collections.abc import Callable

from broker import inferred
from broker.effects import Effect, Emit, Kill, Send
from broker.loading import Limits, Turns
from broker.messages import DIGESTS_SETTING, RECORD_SETTING, Declared, Load, Loaded, LoadFailed, Stop, describe_code
from broker.models import (
    QUICK_DEATH_SECONDS,
    SERVICE_SECONDS,
    Instance,
    InstanceState,
    Model,
    Version,
    VersionState,
    back_off,
    plan_scale,
)
from broker.rate_limiter import RateLimiter, Unsatisfiable
from broker.requests import Death, Requests
from broker.statistics import Statistics
from configs import backend_settings, metrics_config
from configs.description import Environment, ModelDescription, TensorSpec
from configs.description import Instance as InstanceSpec
from configs.errors import ConfigError
from configs.namespaces import bare_name
from configs.server import ServerConfig

UNLOAD_SECONDS = 30.0
"""How long a worker may take to finalize before it is killed."""


class Fleet:
    """Owns the models' instances and the workers behind them."""

    def __init__(
        self,
        models: dict[str, Model],
        requests: Requests,
        config: ServerConfig,
        out: list[Effect],
        launch: Callable[[str, str, str | None, Environment | None, str], str],
        limiter: RateLimiter | None = None,
    ) -> None:
        """`models` is shared with `requests`; `launch(role, name, devices, environment, backend)` starts a process."""
        self.models = models
        self._requests = requests
        self._config = config
        self._metrics = metrics_config.parse(config.metrics_config)
        self._out = out
        self._launch = launch
        self._limiter = limiter
        self.log_verbose = config.log_verbose
        self.unused_paths: list[str] = []  # model directories from which nothing is served any more
        self.is_changed = False  # models have come, gone or changed their backend
        self.workers: dict[str, Instance] = {}
        self.cold: set[Version] = set()  # those that a request may have loaded, and perhaps some that are gone
        self._is_on_demand = config.model_control_mode == "on-demand"
        self._stopping: dict[str, float] = {}  # worker that was told to stop -> when it is killed
        self.turns = Turns(Limits(config.model_load_thread_count, 0))
        self._restarts: dict[Instance, float] = {}  # instance without a worker -> when it gets one

    # ------------------------------------------------------------------------------------------- configuration

    def apply(self, description: ModelDescription, now: float) -> None:
        """The repository describes a model as it should be."""
        model = self.models.setdefault(description.name, Model(description.name))
        refusal = self._refusal(description)
        if refusal and model.is_served:
            self.reject(model.name, refusal)
            model.failures = dict.fromkeys(description.versions, refusal)
            return
        self._log_warnings(model, description)
        is_change = model.description is not None and model.description != description
        model.rejected, model.description, model.is_newcomer = "", description, False
        model.failures.clear()
        model.unloaded.clear()
        self.is_changed = True
        fresh: dict[int, Version] = {}
        for number in description.versions:
            wanted = Version.create(description, number)
            current = self._current(model, wanted)
            if current is None:
                fresh[number] = wanted
            else:
                self._limit(current, description)
                if current.count and description.instances != current.description.instances:
                    current.count = None  # what is set by hand counts
                current.reschedule(description)
                self._scale(current, current.wanted, now)
                self._requests.dispatch(current, now)
        for number in [n for n in model.incoming if n in fresh or n not in description.versions]:
            self._retire(model, model.incoming.pop(number), now)
        if is_change:
            self._emit("I", f"model '{model.name}': new configuration applied")
        for number, version in fresh.items():
            self._admit(model, number, version, now)
        self._promote(model, now)

    def reject(self, name: str, error: str) -> None:
        """The repository cannot read a model's configuration: what is served stays."""
        model = self.models.setdefault(name, Model(name))
        if model.rejected != error:
            model.rejected = error
            model.reloads["failed"] += model.is_served
            self.is_changed = True
            kept = "; what is served is unchanged" if model.versions else ""
            self._emit("E", f"model '{name}': {error}{kept}")

    def remove(self, name: str, now: float) -> None:
        """The model is gone from the repository: its requests are finished, then its instances stop."""
        model = self.models.get(name)
        if model is None:
            return
        self._emit("I", f"model '{name}' is no longer configured: unloading")
        model.unloaded.clear()
        self._take_down(model, now)

    def unload(self, name: str, now: float) -> None:
        """A client unloads a model: as `remove`, but it stays known."""
        model = self.models.get(name)
        if model is None or (model.description is None and not model.rejected):
            return
        self._emit("I", f"unloading model '{name}'")
        model.unloaded |= {n for n, v in model.versions.items() if v.state is VersionState.READY}
        self._take_down(model, now)

    def _take_down(self, model: Model, now: float) -> None:
        model.description = None
        model.rejected = ""
        model.failures.clear()
        self.is_changed = True
        for version in [*model.versions.values(), *model.incoming.values()]:
            self._retire(model, version, now)
        model.versions.clear()
        model.incoming.clear()
        self._forget(model)

    def _current(self, model: Model, wanted: Version) -> Version | None:
        """The version that already is (or is becoming) what is wanted."""
        for versions in (model.incoming, model.versions):
            version = versions.get(wanted.number)
            if version is not None and version.fingerprint == wanted.fingerprint:
                return version if version.state is not VersionState.UNAVAILABLE else None
        return None

    def _admit(self, model: Model, number: int, version: Version, now: float) -> None:
        """Load a version: beside what serves, or in place of what does not."""
        serving = any(v.state is VersionState.READY and not v.is_cold for v in model.versions.values())
        old = model.versions.get(number)
        if serving:
            model.incoming[number] = version
        else:
            if old is not None:
                self._retire(model, old, now)
            model.versions[number] = version
        refusal = self._refusal(version.description)
        if refusal:
            self._emit("E", f"model '{model.name}': version {number} failed to load: {refusal}")
            self.fail_version(version, refusal, now)
            return
        version.load_began = now
        if old is not None and serving and old.description.instances == version.description.instances:
            version.count = old.count if version.residency.max_count else None  # what the load has needed
        version.statistics = self._statistics(version)
        self._limit(version, version.description)
        if self._is_on_demand and not serving and not version.residency.is_pinned:
            version.state, version.count, version.is_unread = VersionState.READY, 0, True
            self._chill(version)
        else:
            self._scale(version, version.wanted, now)

    def _refusal(self, description: ModelDescription) -> str:
        """Why the rate limiter cannot let the model's instances execute, "" if it can."""
        try:
            if self._limiter is not None:
                self._limiter.check(description.name, description.instances)
        except Unsatisfiable as error:
            return f"Invalid argument: {error}"
        return ""

    def _limit(self, version: Version, description: ModelDescription) -> None:
        if self._limiter is not None:
            self._limiter.admit(version, description.instances)

    def _unlimit(self, version: Version) -> None:
        if self._limiter is not None:
            self._limiter.forget(version)

    def _promote(self, model: Model, now: float) -> None:
        """When all incoming versions are ready they take over at once, and what is not wanted any more retires."""
        if any(version.state is VersionState.LOADING for version in model.incoming.values()):
            return
        model.reloads["applied"] += bool(model.incoming)
        for number, version in model.incoming.items():
            old = model.versions.pop(number, None)
            if old is not None:
                if version.sequences is not None and old.sequences is not None:
                    version.sequences.mourn(old.sequences)
                self._retire(model, old, now)
            model.versions[number] = version
        model.incoming.clear()
        if model.description is not None:
            for number in [n for n in model.versions if n not in model.description.versions]:
                self._retire(model, model.versions.pop(number), now)

    # ------------------------------------------------------------------------------------------- scaling

    def _statistics(self, version: Version) -> Statistics:
        statistics = Statistics()
        statistics.latencies.configure(self._metrics, metrics_config.buckets(version.description.config))
        return statistics

    def set_count(self, version: Version, count: int | None, now: float) -> None:
        """Have so many instances in each group, None: as described; 0: none until a request comes."""
        if count == 0:
            self._chill(version)
        elif version.is_cold:
            version.load_began = now
        version.count = count
        self._scale(version, version.wanted, now)

    def _chill(self, version: Version) -> None:
        version.is_cold = True
        self.cold.add(version)

    def warm(self, version: Version) -> None:
        """It is there, and has said what it is."""
        version.is_cold = version.is_unread = False
        self.cold.discard(version)

    def _scale(self, version: Version, wanted: tuple[InstanceSpec, ...], now: float) -> None:
        plan = plan_scale([i for i in version.instances if i.state is not InstanceState.FAILED], wanted)
        version.instances = [i for i in version.instances if i.state is not InstanceState.FAILED]
        for instance in plan.keep:
            instance.is_leaving = False
        for device in {spec.device for spec in plan.start if spec.device} - version.devices.keys():
            version.devices.setdefault("", self._statistics(version))
            version.devices[device] = self._statistics(version)
        for spec in plan.start:
            instance = Instance(spec, version, InstanceState.QUEUED, asked_at=now)
            version.instances.append(instance)
            self.turns.add(instance)
        self._start_next()
        lacks = bool(plan.start) or any(i.state is not InstanceState.READY for i in plan.keep)
        for instance in plan.drain:
            if lacks and version.state is VersionState.READY and instance.state is InstanceState.READY:
                instance.is_leaving = True
            else:
                self._drain(instance, now)
        if version.state is VersionState.READY and (plan.start or plan.drain):
            self._emit(
                "I",
                f"model '{version.model}' version {version.number}: {len(plan.start)} instance(s) starting, "
                f"{len(plan.drain)} draining, {len(plan.keep)} unchanged",
            )
        self._settle(version, now)

    def _start_next(self) -> None:
        """Have those load whose turn it is."""
        while instance := self.turns.next(self.workers.values()):
            self._start(instance)

    def _start(self, instance: Instance) -> None:
        described = instance.version.description
        instance.peer = self._launch(
            "worker", _label(instance), instance.spec.visible_devices, described.environment, described.backend
        )
        instance.state = InstanceState.STARTING
        instance.ready_at = None
        instance.pid, instance.reason, instance.execution_seconds, instance.capacity = 0, "", None, 1
        instance.memory, instance.is_measured = {}, False
        self.workers[instance.peer] = instance

    def _drain(self, instance: Instance, now: float) -> None:
        """No new work; stop when the old is done."""
        is_none = self._restarts.pop(instance, None) is not None or self.turns.remove(instance)
        if instance.state is InstanceState.FAILED or is_none:
            instance.version.instances.remove(instance)
            return
        instance.state = InstanceState.DRAINING
        self._stop_if_done(instance, now)

    def _stop_if_done(self, instance: Instance, now: float) -> None:
        sequences = instance.version.sequences
        is_bound = sequences is not None and sequences.holds(instance)
        is_done = not instance.attempts and not instance.streams and not is_bound
        if instance.state is InstanceState.DRAINING and is_done and instance.peer not in self._stopping:
            self._stopping[instance.peer] = now + UNLOAD_SECONDS
            is_loaded = instance.ready_at is not None
            self._out.append(Send(instance.peer, Stop("unload")) if is_loaded else Kill(instance.peer))

    def _retire(self, model: Model, version: Version, now: float) -> None:
        """Take a version out of service; it finishes its requests first."""
        if version.state is VersionState.LOADING:
            self._requests.give_up(version, "the model is being unloaded", now)
        version.state = VersionState.UNLOADING
        if version not in model.retiring:
            model.retiring.append(version)
        if version.sequences is not None:
            version.sequences.close()
            self._requests.dispatch(version, now)
        self._finish_retiring(model, now)

    def _finish_retiring(self, model: Model, now: float) -> None:
        for version in list(model.retiring):
            if not version.scheduler and not version.executing and not version.pins:
                for instance in list(version.instances):
                    if instance.state is not InstanceState.DRAINING:
                        self._drain(instance, now)
            if not version.instances and not version.executing:
                model.retiring.remove(version)
                self._unlimit(version)
                path = version.description.path
                if all(other.description.path != path for other in model.all_versions()):
                    self.unused_paths.append(path)
        self._forget(model)

    def _forget(self, model: Model) -> None:
        is_idle = not any(True for _ in model.all_versions())
        if is_idle and model.description is None and not model.rejected and not model.unloaded:
            self.models.pop(model.name, None)

    # ------------------------------------------------------------------------------------------- workers' events

    def hello(self, peer: str, pid: int) -> None:
        """A worker is up: tell it what to load."""
        instance = self.workers[peer]
        instance.pid = pid
        if instance.state is not InstanceState.STARTING:
            return
        instance.state, instance.phase = InstanceState.LOADING, "import"
        version = instance.version
        load = load_message(version.description, version.number, instance.spec, self._config, self.log_verbose)
        self._out.append(Send(peer, load))

    def loaded(self, instance: Instance, message: Loaded, now: float) -> None:
        """An instance is ready, if it is still wanted."""
        if instance.state is not InstanceState.LOADING:
            return
        version = instance.version
        instance.ready_at = instance.busy_since = now
        try:
            version.complete(_specs(message.inputs), _specs(message.outputs), message.config)
        except ConfigError as error:
            self._fail_load(instance, f"Invalid argument: {error}", now)
            return
        version.is_asked = message.is_asked
        self.is_changed = True
        instance.state = InstanceState.READY
        self._start_next()
        self._settle(version, now)
        self._requests.dispatch(version, now)

    def load_failed(self, instance: Instance, message: LoadFailed, now: float) -> None:
        """An instance says that it cannot be loaded."""
        if instance.state is InstanceState.LOADING:
            self._fail_load(instance, f"{describe_code(message.code)}: {message.error}", now)

    def executed(self, instance: Instance, now: float) -> None:
        """A batch is done: perhaps that was what a draining instance or a retiring version waited for."""
        if instance.state is InstanceState.DRAINING:
            self._stop_if_done(instance, now)
        if instance.version.state is VersionState.UNLOADING:
            self._finish_retiring(self.models[instance.version.model], now)

    def lost(self, peer: str, death: Death, now: float) -> None:
        """A worker's process is gone."""
        instance = self.workers.pop(peer)
        version, state, hung = instance.version, instance.state, instance.reason
        self._stopping.pop(peer, None)
        instance.peer, instance.pid, instance.shm_used, instance.shm_mapped = "", 0, 0, 0
        instance.memory = {}
        if state is InstanceState.READY:
            instance.state = InstanceState.WAITING
        self._requests.worker_lost(instance, death, now)
        if state is InstanceState.DRAINING:
            version.instances.remove(instance)
        elif state is InstanceState.WAITING:
            self._restarts[instance] = now + back_off(instance.quick_deaths)
        elif state is not InstanceState.FAILED:
            self._revive(instance, death, hung, now)
        self._start_next()
        self._settle(version, now)
        if version.state is VersionState.UNLOADING and version.model in self.models:
            self._finish_retiring(self.models[version.model], now)

    def _revive(self, instance: Instance, death: Death, hung: str, now: float) -> None:
        """Start a dead worker again, at once the first time."""
        was_ready = instance.ready_at is not None
        output = f"; last output: {' | '.join(death.last_lines)}" if death.last_lines else ""
        self._emit("E", f"{instance.key}: worker died: {hung or death.text}{output}")
        is_first = instance.version.state is VersionState.LOADING and not death.is_outside
        if not was_ready and (is_first or instance.version.is_cold):
            self._fail_load(instance, f"Internal: the worker died while loading: {death.text}{output}", now)
            return
        service = now - instance.ready_at if instance.ready_at is not None else 0.0
        if service >= SERVICE_SECONDS:
            instance.quick_deaths = 0
        if not was_ready or service < QUICK_DEATH_SECONDS:
            instance.quick_deaths += 1
        cause = "hung" if hung else "killed" if death.is_outside else "crash"
        instance.restarts[cause] = instance.restarts.get(cause, 0) + 1
        instance.state = InstanceState.WAITING
        instance.reason = death.text
        self._restarts[instance] = now + back_off(instance.quick_deaths)
        self.tick(now)

    def _fail_load(self, instance: Instance, error: str, now: float) -> None:
        version = instance.version
        if instance.restarts and version.state is VersionState.READY and not version.is_cold:
            instance.quick_deaths += 1
            instance.state = InstanceState.WAITING
            instance.reason = error
            self._emit("E", f"{instance.key}: failed to load again: {error}")
        else:
            instance.state = InstanceState.FAILED
            instance.reason = error
            self._emit("E", f"{instance.key}: failed to load: {error}")
        if instance.peer in self.workers:
            self._stopping[instance.peer] = now + UNLOAD_SECONDS
            self._out.append(Send(instance.peer, Stop("load failed")))
        self._start_next()
        if version.state is VersionState.LOADING or (version.state is VersionState.READY and version.is_cold):
            self.fail_version(version, error, now)
        elif version.is_cold:  # it is retiring
            self._requests.give_up(version, error, now)

    def fail_version(self, version: Version, error: str, now: float) -> None:
        """A version cannot be served."""
        self.is_changed = True
        version.state = VersionState.UNAVAILABLE
        version.reason = error
        self.models[version.model].failures[version.number] = error
        version.is_cold = version.is_unread = False
        if self._is_on_demand:
            self.cold.add(version)  # the next request has it tried again
        self._requests.give_up(version, error, now)
        self._unlimit(version)
        for instance in list(version.instances):
            if instance.state is not InstanceState.FAILED:
                self._drain(instance, now)
        model = self.models[version.model]
        if model.incoming.get(version.number) is version:
            self._emit("E", f"model '{model.name}': version {version.number} failed to load, the old keeps serving")
            model.rejected = f"version {version.number} failed to load: {error}"
            model.reloads["failed"] += 1
            for number in list(model.incoming):
                self._retire(model, model.incoming.pop(number), now)

    def serve_version(self, version: Version, now: float, what: str = "all its models are there") -> None:
        """A version is loaded: requests go to it."""
        version.state, version.reason = VersionState.READY, ""
        version.load_seconds = now - (version.load_began if version.load_began is not None else now)
        self.models[version.model].failures.pop(version.number, None)
        self.is_changed = True
        self._emit("I", f"model '{version.model}' version {version.number} is ready: {what}")
        if version.description.is_inferred:
            self._emit("I", inferred.told(version))
        self._promote(self.models[version.model], now)

    def _settle(self, version: Version, now: float) -> None:
        """Bring a version's state up to date with its instances; `compositions` does it for ensembles."""
        if version.description.steps:
            return
        alive = [i for i in version.instances if i.state is InstanceState.READY]
        settled = [i for i in version.instances if i.state is not InstanceState.DRAINING]
        if version.state is VersionState.LOADING and settled and len(alive) == len(settled):
            self.serve_version(version, now, f"{len(alive)} instance(s)")
        elif version.is_cold and alive:
            self.warm(version)
            if version.state is VersionState.READY:
                self.serve_version(version, now, f"{len(alive)} instance(s)")
        leaving = [i for i in settled if i.is_leaving]
        if leaving and all(i.state is InstanceState.READY for i in settled if not i.is_leaving):
            for instance in leaving:
                self._drain(instance, now)
        if version.state in {VersionState.READY, VersionState.UNLOADING}:
            is_down = not alive and not version.is_cold
            version.down_since = (now if version.down_since is None else version.down_since) if is_down else None
            self._requests.refuse_outage(version, now)

    # ------------------------------------------------------------------------------------------- time

    def tick(self, now: float) -> None:
        """Restart what is due; kill workers that do not stop; let versions go whose queue has run empty."""
        for instance in [i for i, due in self._restarts.items() if due <= now]:
            del self._restarts[instance]
            instance.asked_at = now
            self._start(instance)  # at once: it was there before
        for peer, deadline in list(self._stopping.items()):
            if deadline <= now:
                self._stopping[peer] = now + UNLOAD_SECONDS
                self._out += [Emit("W", f"{peer} does not stop, killing it"), Kill(peer)]
        for instance in [i for i in self.workers.values() if i.state is InstanceState.DRAINING]:
            self._stop_if_done(instance, now)  # its last sequence may have ended
        for model in [model for model in self.models.values() if model.retiring]:
            self._finish_retiring(model, now)

    def next_deadline(self) -> float | None:
        """When `tick` has something to do."""
        return min([*self._restarts.values(), *self._stopping.values()], default=None)

    def stop(self, now: float) -> None:
        """Stop every worker: the server ends."""
        for model in self.models.values():
            for version in model.all_versions():
                for instance in list(version.instances):
                    self._drain(instance, now)

    def _log_warnings(self, model: Model, description: ModelDescription) -> None:
        known = model.description.warnings if model.description is not None else ()
        for warning in description.warnings:
            if warning not in known:
                self._emit("W", f"model '{description.name}': {warning}")

    def _emit(self, level: str, text: str) -> None:
        self._out.append(Emit(level, text))


def _label(instance: Instance) -> str:
    """What stands before the worker's lines in the log: model and instance, also where its group has another name."""
    model = bare_name(instance.version.model)
    return instance.key if instance.key.startswith(f"{model}_") else f"{model}/{instance.key}"


def load_message(
    description: ModelDescription, version: int, instance: InstanceSpec, config: ServerConfig, log_verbose: int
) -> Load:
    """What a worker is told to become."""
    settings = {
        "auto-complete-config": str(not config.disable_auto_complete_config).lower(),
        **backend_settings.merged(config.backend_config, description.backend),
        "backend-directory": str(config.backends),
        **({RECORD_SETTING: config.record} if config.record else {}),
        **({DIGESTS_SETTING: json.dumps(description.digests)} if description.digests else {}),
    }
    return Load(
        bare_name(description.name),
        version,
        instance.name,
        description.backend,
        description.path,
        instance.kind,
        0,
        json.dumps(description.config),
        settings,
        config.shm(description.backend),
        log_verbose,
    )


def _specs(declared: Declared) -> tuple[TensorSpec, ...]:
    return tuple([TensorSpec(name, datatype, dims) for name, datatype, dims in declared])
