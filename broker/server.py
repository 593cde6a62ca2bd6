"""The broker process: one poll loop that feeds events to the core and executes the effects that it returns."""

import gc
import os
import select
import signal
import sys
import time
from collections import defaultdict, deque
from contextlib import ExitStack
from dataclasses import fields
from importlib.metadata import version

from broker import cpus, processors, runtime, tables
from broker.core import Core, Frontends
from broker.effects import ConfigureLog, Effect, Emit, Exit, Kill, Send, Share, Start, Unlink
from broker.listen import Ports, frontend_counts, open_ports
from broker.log import Log
from broker.log_settings import LogSettings
from broker.memory import load_memory
from broker.messages import Message, ProtocolError
from broker.nurseries import Nurseries
from broker.requests import Death
from broker.supervisor import Child, Supervisor
from broker.transport import Router, Unreachable
from configs import host_policy
from configs.server import ServerConfig
from shm import region

REPEATED = ("http_restricted_api", "grpc_restricted_protocol")
"""Settings of several values that frontends are told."""
FINE_SECONDS = 0.01
"""Waits shorter than this end at their very microsecond: queue delays are of that kind."""
GC_THRESHOLD = 50_000
"""Objects between garbage collections: requests leave no cycles."""
FLOOD_SHARE = 0.2
"""Of our time, for a child that floods us with output: it is not listened to until then, so that it waits itself."""
PROGRESS_SECONDS = 0.25
"""How often at most it is said how far the start is."""
OBSERVE_SECONDS = 1.0
"""How often the children's process states are looked at."""


class Server:
    """`run` is the life of the broker: start, serve, drain, stop."""

    def __init__(self, config: ServerConfig, arguments: list[str]) -> None:
        """`arguments` is the command line, which the repository process reads again. Nothing starts before `run`."""
        self._config = config
        self._arguments = arguments
        self._log = Log(_log_descriptor(config))
        settings = LogSettings(config)
        self._log.configure(settings.levels, config.log_format)
        self._id = runtime.new_id()
        self._began = time.monotonic()
        self._poll = select.epoll()
        self._outgoing: defaultdict[str, list[Message]] = defaultdict(list)
        self._exit_status: int | None = None
        self._watched: dict[int, tuple[str, str]] = {}  # descriptor -> (what, token)
        self._stillborn: deque[tuple[str, str]] = deque()  # (token, why it was not started)
        self._paused: dict[str, float] = {}  # child that is not listened to -> until when
        self._was_started = False
        self._next_observation = 0.0
        self._shown_progress = ""
        self._next_progress = 0.0
        self._processors = processors.find()
        self._policies = host_policy.parse(config.host_policy)

    def run(self) -> int:
        """Serve until the end; the exit status. Raises StartError, OSError."""
        runtime.sweep_dead_servers()
        runtime.raise_file_limit()
        runtime.prefer_throughput()
        ports = open_ports(self._config)
        with ExitStack() as cleanup:
            cleanup.callback(self._log.close)
            directory, _ = runtime.claim(self._id)
            cleanup.callback(runtime.clean, self._id)
            self._router = Router(directory / "broker")
            cleanup.callback(self._router.close)
            self._supervisor = Supervisor(str(directory / "broker"), self._id, ports.listeners, self._arguments)
            cleanup.callback(self._supervisor.end)
            self._nurseries = Nurseries(self._supervisor, self._attend)
            cleanup.callback(self._nurseries.close)
            self._core = Core(
                self._config, _frontends(self._config, ports), time.time() - time.monotonic(), load_memory()
            )
            self._watch(self._router.fileno(), "router", "")
            self._watch(_signals(), "signal", "")
            self._announce(ports)
            self._apply(self._core.begin(time.monotonic()))
            gc.freeze()
            gc.set_threshold(GC_THRESHOLD)
            self._loop()
        return self._exit_status or 0

    # ------------------------------------------------------------------------------------------- the loop

    def _loop(self) -> None:
        while self._exit_status is None:
            is_busy = self._receive()
            self._flush()
            self._look(is_busy)
            now = time.monotonic()
            if now >= self._core.next_deadline():
                self._apply(self._core.tick(now))
            if now >= self._next_observation:
                self._next_observation = now + OBSERVE_SECONDS
                self._apply(self._core.observe(self._supervisor.stopped(), now))
                self._look_after_nurseries(now)
                self._log.flush()
            self._listen_again(now)
            self._bury_stillborn()
            self._flush()
            self._report()

    def _receive(self) -> bool:
        """Handle all messages that are there; False when there were none."""
        arrived = self._router.receive()
        now = time.monotonic()
        for peer, messages in arrived:
            if isinstance(messages, ProtocolError):
                self._apply(self._core.malformed(peer, str(messages), now))
                continue
            self._apply(self._core.handle(peer, messages, now))
        return bool(arrived)

    def _look(self, is_busy: bool) -> None:
        """Wait for the next event (not at all when busy), then look after the descriptors that are ready."""
        timeout = 0.0
        if not is_busy and not self._router.has_more():
            deadlines = (self._core.next_deadline(), self._next_observation, *self._paused.values())
            timeout = max(0.0, min(deadlines) - time.monotonic())
        if 0 < timeout < FINE_SECONDS:
            select.select([self._poll], [], [], timeout)  # an epoll counts in whole milliseconds
            timeout = 0.0
        # Looked up before the first is served: that may close descriptors whose numbers are used again at once.
        ready = [(descriptor, *self._watched[descriptor]) for descriptor, _ in self._poll.poll(timeout)]
        for descriptor, what, token in ready:
            match what:
                case "output":
                    self._read_output(token)
                case "process":
                    self._bury(token)
                case "gate":
                    self._let_in(token)
                case "signal":
                    self._take_signals(descriptor)
                case _:
                    continue

    def _read_output(self, token: str) -> None:
        child = self._supervisor.children.get(token)
        if child is None:
            return
        began = time.monotonic()
        self._log.printed(child.name, self._supervisor.read(child))
        if child.is_mute or child.is_flooding:
            self._unwatch(child.output)
        if child.is_flooding:
            now = time.monotonic()
            self._paused[token] = now + (now - began) * (1 / FLOOD_SHARE - 1)

    def _listen_again(self, now: float) -> None:
        for token in [token for token, end in self._paused.items() if end <= now]:
            del self._paused[token]
            self._watch(self._supervisor.children[token].output, "output", token)

    def _bury(self, token: str) -> None:
        child = self._supervisor.children[token]
        self._unwatch(child.pidfd)
        self._unwatch(child.output)
        self._paused.pop(token, None)
        self._receive()  # what it sent before its death still counts
        death, lines = self._supervisor.bury(token)
        self._log.printed(child.name, lines)
        if self._nurseries.lost(token, death.is_outside):
            return
        self._apply(self._core.lost(token, death, time.monotonic()))
        for name in region.names_of(self._id, token):
            if not self._core.is_awaiting(name):
                region.unlink(name)  # it died before the region was announced

    def _take_signals(self, descriptor: int) -> None:
        for number in os.read(descriptor, 64):
            name = signal.Signals(number).name
            delay = self._config.drain_delay_secs if number == signal.SIGTERM else 0
            self._apply(self._core.drain(f"received {name}", time.monotonic(), delay))

    # ------------------------------------------------------------------------------------------- effects

    def _apply(self, effects: list[Effect]) -> None:
        outgoing = self._outgoing
        for effect in effects:
            if isinstance(effect, Send):  # nearly all are
                peer, message = effect
                outgoing[peer].append(message)
                continue
            match effect:
                case Start():
                    self._start(effect)
                case Kill(peer):
                    self._kill(peer)
                case Unlink(name):
                    region.unlink(name)
                case Emit(level, text):
                    self._log.line(level, text)
                case ConfigureLog(levels, form):
                    self._log.configure(levels, form)
                case Exit(status):
                    self._exit_status = status

    def _start(self, start: Start) -> None:
        start = start._replace(share=self._share(start))
        gate = self._nurseries.order(start, time.monotonic())
        if gate is None:
            self._start_alone(start)
        else:
            self._watch(gate, "gate", start.peer)

    def _start_alone(self, start: Start) -> None:
        try:
            child = self._supervisor.start(start)
        except OSError as error:
            self._stillborn.append((start.peer, f"cannot be started: {error.strerror or error}"))
            return
        self._attend(child)
        self._core.started(start.peer, child.process.pid, time.monotonic())

    def _let_in(self, token: str) -> None:
        """A worker that was ordered of a nursery is at its gate, or will never be."""
        if not self._nurseries.is_expected(token):
            return  # it was given up in this turn
        self._unwatch(self._nurseries.gate(token))
        child = self._nurseries.arrived(token)
        if child is None:
            self._start_alone(self._nurseries.give_up(token))
            return
        self._attend(child)
        self._core.started(token, child.process.pid, time.monotonic())

    def _look_after_nurseries(self, now: float) -> None:
        for token in self._nurseries.overdue(now):
            self._unwatch(self._nurseries.gate(token))
            self._start_alone(self._nurseries.give_up(token))
        self._nurseries.reap_strangers()

    def _kill(self, token: str) -> None:
        if not self._nurseries.is_expected(token):
            self._supervisor.kill(token)
            return
        self._unwatch(self._nurseries.gate(token))
        self._nurseries.give_up(token)
        self._stillborn.append((token, "killed before it was forked"))

    def _bury_stillborn(self) -> None:
        """Tell of what was to be started and is not: after the effects it was among, which may start what that ends."""
        while self._stillborn:
            token, why = self._stillborn.popleft()
            self._apply(self._core.lost(token, Death(why, False, 0, ()), time.monotonic()))

    def _attend(self, child: Child) -> None:
        self._watch(child.pidfd, "process", child.token)
        self._watch(child.output, "output", child.token)

    def _share(self, start: Start) -> Share:
        """What of the processors the process is to use: what else is to be started is known by now."""
        worker = self._core.fleet.workers.get(start.peer)
        if worker is None:
            return Share(1, None, cpus.variables(1, os.environ))
        crowd = cpus.crowd(self._core.models.values())
        return cpus.plan(self._processors, self._policies, worker.spec.host_policy, crowd, os.environ)

    def _flush(self) -> None:
        """Everything for one peer leaves as one list."""
        outgoing, self._outgoing = self._outgoing, defaultdict(list)
        for peer, messages in outgoing.items():
            try:
                self._router.send(peer, messages)
            except Unreachable:
                if peer in self._supervisor.children:
                    self._apply(self._core.unreachable(peer, time.monotonic()))

    def _watch(self, descriptor: int, what: str, token: str) -> None:
        self._poll.register(descriptor, select.EPOLLIN)
        self._watched[descriptor] = (what, token)

    def _unwatch(self, descriptor: int) -> None:
        if self._watched.pop(descriptor, None) is not None:
            self._poll.unregister(descriptor)

    # ------------------------------------------------------------------------------------------- for people

    def _announce(self, ports: Ports) -> None:
        for warning in (*self._config.warnings, *cpus.missing(self._processors, self._policies)):
            self._log.line("W", warning)
        values = {"id": self._config.id, "version": version("tidepool")}
        values |= {role: f"{address}:{port}" for role, (address, port) in ports.addresses().items()}
        values["model_repository"] = ", ".join(
            str(self._config.remotes.get(path, path)) for path in self._config.model_repository
        )
        for name in ("model_control_mode", "strict_readiness", "exit_on_error", "exit_timeout_secs"):
            values[name] = str(getattr(self._config, name))
        for backend, settings in sorted(self._config.backend_config.items()):
            values[f"backend {backend or '(all)'}"] = ", ".join(f"{k}={v}" for k, v in sorted(settings.items()))
        self._log.write(tables.options(values))

    def _report(self) -> None:
        """Progress while loading; the tables when everything has loaded or failed."""
        if self._was_started:
            return
        if not self._core.is_started:
            now = time.monotonic()
            if now < self._next_progress:
                return
            self._next_progress = now + PROGRESS_SECONDS
            text = tables.progress(self._core.models)
            if text != self._shown_progress and self._core.models:
                self._shown_progress = text
                self._log.line("I", text)
            return
        self._was_started = True
        self._log.write(tables.models(self._core.models))
        self._log.write(tables.instances(self._core.models))
        state = "ready" if self._core.is_ready else "started, but not ready"
        self._log.line("I", f"{state} after {time.monotonic() - self._began:.2f} s")


def _log_descriptor(config: ServerConfig) -> int:
    """Where the log goes. Raises OSError."""
    if not config.log_file:
        return sys.stdout.fileno()
    return os.open(config.log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)


def _frontends(config: ServerConfig, ports: Ports) -> Frontends:
    """What the frontends are told: every plain setting, by its name."""
    values = {field.name: getattr(config, field.name) for field in fields(config)}
    options = {
        name: value for name, value in values.items() if isinstance(value, str | int | float | bool) or name in REPEATED
    }
    options |= {f"{role}_port": port for role, (_, port) in ports.addresses().items()}
    return Frontends(frontend_counts(config, ports), {**options, "version": version("tidepool")})


def _signals() -> int:
    """A descriptor from which the numbers of signals that end the server can be read."""
    read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(write)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    return read
