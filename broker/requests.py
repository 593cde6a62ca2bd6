"""The requests that are under way, from their acceptance to their final response. Pure."""

from typing import Any, NamedTuple, Protocol

from broker import answers, calls
from broker.blocks import Blocks
from broker.client_regions import ClientRegions
from broker.effects import Effect, Emit, Kill, Send
from broker.ensembles import Ensembles, Hooks
from broker.messages import (
    Abandon,
    CacheFound,
    Consumed,
    Credit,
    ErrorCode,
    Execute,
    Executed,
    Infer,
    Item,
    Kept,
    Parameters,
    Part,
    ProtocolError,
    Responded,
    Response,
    Result,
    TensorsTraced,
)
from broker.models import Attempt, Instance, Model, Version, VersionState
from broker.queue import QueueFull
from broker.regions import Regions
from broker.remote_cache import RemoteCache
from broker.request import Request
from broker.response_cache import ResponseCache
from broker.runs import Step
from broker.schedulers import SequenceScheduler
from broker.schedulers.controls import START
from broker.tracing import is_delivery_traced
from broker.validation import Rejected, prefix, restore_shape
from shm.ref import TensorRef

OUTAGE_SECONDS = 30.0
"""How long requests wait for a model whose instances have all died and of which none is coming back."""
_FINAL = Part.FINAL.value  # flags are compared as integers: this is done for every response
HUNG = "hung: execution exceeded execution_timeout_ms"
MAX_KILLS = 3
"""How many deaths by a signal from outside a request survives."""


class Death(NamedTuple):
    """How a process ended. `is_outside`: a SIGKILL that was not ours (an operator, the OOM killer).

    `started` is the number of the last attempt that the worker handed to execute; `last_lines` its last output.
    """

    text: str
    is_outside: bool
    started: int
    last_lines: tuple[str, ...]


class Observer(Protocol):
    """Whoever watches the requests: traces and the access log."""

    epoch_offset: float
    """Turns seconds of the monotonic clock into seconds since the epoch."""
    logs_access: bool
    """It wants to hear of all answers, not only of those to traced requests."""

    def begin(self, model: str, traceparent: str) -> dict[str, Any] | None:
        """Whether a new request is traced: the beginning of its record."""

    def begin_step(self, parent: Request) -> dict[str, Any] | None:
        """Likewise for a step of an ensemble."""

    def context(self, record: dict[str, Any], tracestate: str) -> str:
        """The trace context for the model that executes it, as JSON."""

    def answered(self, request: Request, response: Response) -> None:
        """A request has got its final response."""

    def tensors(self, request: Request, message: TensorsTraced) -> None:
        """A worker tells the tensors of a request."""

    def refused(self, infer: Infer, response: Response, now: float) -> None:
        """A request was not accepted."""


class Requests:
    """The in-flight table and the one function that gives work to instances (`dispatch`)."""

    def __init__(
        self,
        models: dict[str, Model],
        client_regions: ClientRegions,
        regions: Regions,
        out: list[Effect],
        observer: "Observer",
        cache: ResponseCache | RemoteCache | None,
    ) -> None:
        """`out` collects the effects; `observer` decides what is traced and hears of answers."""
        self._models = models
        self._client_regions = client_regions
        self._out = out
        self._observer = observer
        self._cache = cache
        self._in_flight: dict[tuple[str, int], Request] = {}
        self._attempts = 0
        self._touched: dict[Version, None] = {}  # there may be something to dispatch
        self._alarms: dict[Version, float] = {}  # when to dispatch again: company was waited for, or a timeout
        self._timed: set[Version] = set()  # they execute under execution_timeout_ms
        self.is_stopping = False
        self.wanted: dict[Version, None] = {}  # those that have to be loaded first (`on_demand`)
        hooks = Hooks(self._submit, self._answer, self._fail, self._cancel, self._credit)
        self._ensembles = Ensembles(models, Blocks(regions, out), hooks)

    def __len__(self) -> int:
        """Requests without a final response."""
        return len(self._in_flight)

    # ------------------------------------------------------------------------------------------- events

    def accept(self, peer: str, infer: Infer, now: float, caller: Instance | None = None) -> None:
        """A frontend brings a request, or a model that calls another (`caller`): queue it, or say what is wrong.

        Raises ProtocolError.
        """
        key = (peer, infer.request)
        if key in self._in_flight:
            raise ProtocolError(f"request number {infer.request} is in use")
        if not 0 <= infer.received <= now:
            raise ProtocolError(f"a request does not arrive at {infer.received}")
        try:
            version = self._version_for(infer, caller, now)
            infer, used = self._client_regions.resolve(infer)
            try:
                accepted = version.validator.validate(infer)
            except Rejected:
                self._release(used)
                raise
        except Rejected as error:
            self._refuse(peer, infer, _refusal(infer, error.code, str(error)), now)
            return
        request = Request(peer, infer, version, accepted.inputs, accepted.batch, now, used)
        if infer.digest and self._answer_from_cache(request, caller, now):
            return
        try:
            _enqueue(request)
        except Rejected as error:
            self._release(used)
            self._refuse(peer, infer, _refusal(infer, error.code, str(error)), now)
            return
        self._begin(request, caller)
        self._queued(request, now)

    def _version_for(self, infer: Infer, caller: Instance | None, now: float) -> Version:
        """The version that takes a request. Raises Rejected."""
        if self.is_stopping and caller is None and not self._continues(infer):
            raise Rejected(
                f"{prefix(infer.request_id)}Server is stopping, scheduler for model has stopped accepting new "
                "inference requests",
                ErrorCode.UNAVAILABLE,
            )
        version = answers.look_up(self._models, infer.model, infer.version)
        if infer.endpoint and version.description.decoupled:
            text = f"{infer.endpoint} doesn't support models with decoupled transaction policy"
            raise Rejected(text, ErrorCode.UNSUPPORTED)
        if _is_out(version, now):
            raise Rejected(answers.not_ready(version.model, version.number), ErrorCode.UNAVAILABLE)
        return version

    def _submit(self, step: Step, infer: Infer, version: Version, now: float) -> None:
        """Accept a step of an ensemble: what it reads and the version are settled. Raises Rejected."""
        inputs, batch = version.validator.validate(infer)
        request = step.request = Request("", infer, version, inputs, batch, now)
        request.step = step
        _enqueue(request)
        self._begin(request, step.parent.caller)
        self._queued(request, now)

    def _answer_from_cache(self, request: Request, caller: Instance | None, now: float) -> bool:
        """Look for the answer in the cache, without a place in the queue; False when the request has to be executed."""
        version, cache = request.version, self._cache
        if cache is None or not version.is_cached:
            return False
        ns = int((now - request.message.received) * 1e9)
        if isinstance(cache, RemoteCache) and cache.ask(request):
            self._begin(request, caller)
            version.executing += 1  # it does not go before the answer has come
            return True
        entry = None if isinstance(cache, RemoteCache) else cache.look_up(request, ns)
        if entry is None:
            version.statistics.missed(ns, now)
            return False
        self._begin(request, caller)
        self._answer_cached(request, entry.outputs, entry.parameters, now)
        return True

    def _begin(self, request: Request, caller: Instance | None) -> None:
        """A request is under way from now on."""
        version, message = request.version, request.message
        if caller is not None:
            self._note_call(request, caller)
        elif version.preserves_order:
            request.is_ordered = True
            version.order.append(request)
        if request.step is None:
            request.trace = self._observer.begin(version.model, message.traceparent)
        else:
            request.trace = self._observer.begin_step(request.step.parent)
        self._in_flight[request.peer, message.request] = request

    def _queued(self, request: Request, now: float) -> None:
        """It waits for an instance; a call of a model must not wait for itself."""
        self._touched[request.version] = None
        if request.caller is not None:
            self.dispatch_touched(now)
            self._refuse_deadlock(request, now)

    def _answer_cached(
        self, request: Request, outputs: tuple[TensorRef, ...], parameters: Parameters, now: float
    ) -> None:
        """The cache has the answer."""
        version, message = request.version, request.message
        ns = int((now - message.received) * 1e9)
        version.statistics.hit(ns, now)
        if version.devices:
            version.devices[""].hit(ns, now)
        request.ended = now
        number, model = message.request, version.model
        self._respond(request, Response(number, ErrorCode.OK, "", model, version.number, outputs, parameters))

    def found(self, message: CacheFound, now: float) -> None:
        """The remote cache has been asked for the answer to a request."""
        request = self._cache.found(message) if isinstance(self._cache, RemoteCache) else None
        if request is not None and message.is_hit:
            request.version.executing -= 1
            self._answer_cached(request, message.outputs, message.parameters, now)
        elif request is not None:
            self._execute_after_all(request, now)

    def cache_lost(self, now: float) -> None:
        """The remote cache's process is dead: what it was asked for has to be executed."""
        for request in self._cache.process_lost() if isinstance(self._cache, RemoteCache) else ():
            self._execute_after_all(request, now)

    def _execute_after_all(self, request: Request, now: float) -> None:
        version, message = request.version, request.message
        version.executing -= 1
        version.statistics.missed(int((now - message.received) * 1e9), now)
        request.enqueued = now
        if request.is_cancelled or request.is_orphan:
            self._fail(request, ErrorCode.CANCELLED, "", "CANCELED", now)
            return
        try:
            _enqueue(request)
        except Rejected as error:
            self._respond(request, _refusal(message, error.code, str(error)))
            return
        self._queued(request, now)

    def kept(self, instance: Instance, message: Kept) -> None:
        """A worker has kept a response for the cache. Raises ProtocolError."""
        if self._cache is None or message.ns < 0:
            raise ProtocolError(f"{message} was not asked for")
        attempt, version = instance.attempts.get(message.attempt), instance.version
        is_known = attempt is not None and 0 <= message.item < len(attempt.requests)
        if attempt is None or not is_known or version.state is not VersionState.READY:
            self._cache.refuse(instance.peer, message)
            return
        version.statistics.inserted(message.ns)
        outputs = tuple([restore_shape(version.signature, ref) for ref in message.outputs])
        self._cache.insert(instance.peer, attempt.requests[message.item], message, outputs)

    def _continues(self, infer: Infer) -> bool:
        """Whether a request belongs to a sequence that has begun, which may come to its end before the server does."""
        model = self._models.get(infer.model)
        return (
            model is not None
            and not infer.flags & START
            and any(
                version.sequences is not None and infer.correlation_id in version.sequences.live()
                for version in model.versions.values()
            )
        )

    def refuse(self, peer: str, infer: Infer, code: ErrorCode, error: str, now: float) -> None:
        """Answer a request that was not accepted."""
        self._refuse(peer, infer, _refusal(infer, code, error), now)

    def _refuse(self, peer: str, infer: Infer, refusal: Response, now: float) -> None:
        refusal = refusal._replace(part=Part.FINAL)
        self._observer.refused(infer, refusal, now)
        self._out.append(Send(peer, refusal))

    def _note_call(self, request: Request, caller: Instance) -> None:
        request.caller = caller
        request.version.calls += 1
        caller.calls.add(request)
        waiting = caller.attempts.get(request.message.attempt)
        for other in waiting.requests if waiting is not None else ():
            other.has_called = True

    def _refuse_deadlock(self, request: Request, now: float) -> None:
        if request.is_done:
            return
        chain = self._deadlock(request, now - request.enqueued <= OUTAGE_SECONDS)
        if chain and self._unqueue(request):
            text = (
                f"model '{request.version.model}' cannot be called here: all its instances wait for models that wait "
                f"for this call ({' -> '.join(chain)})"
            )
            self._fail(request, ErrorCode.INVALID_ARG, text, "OTHER", now)

    def _deadlock(self, call: Request, is_patient: bool) -> list[str]:
        return calls.deadlock(call, is_patient)

    def cancel(self, peer: str, number: int, now: float) -> None:
        """The client is gone: a queued request leaves the queue, a running one is answered when it is done."""
        request = self._in_flight.get((peer, number))
        if request is not None:
            self._cancel(request, now)

    def _cancel(self, request: Request, now: float) -> None:
        request.is_cancelled = True
        if request.worker:
            self._out.append(Send(request.worker, Abandon(request.attempt, request.item)))
        elif request.version.graph is not None:
            self._ensembles.cancel(request, now)
        elif self._unqueue(request):
            self._fail(request, ErrorCode.CANCELLED, "", "CANCELED", now)

    def _unqueue(self, request: Request) -> bool:
        """Take a request out of its queue; False when it is not there."""
        version: Version = request.version
        is_gone = version.scheduler.remove(request)
        if is_gone and version.sequences is not None:
            self._touched[version] = None  # its sequence has ended: what was behind it, and who gets the slot?
        return is_gone

    def consumed(self, peer: str, message: Consumed) -> None:
        """The client has taken responses of a stream: the model may send as many more."""
        request = self._in_flight.get((peer, message.request))
        if request is not None:
            self._credit(request, message.responses)

    def _credit(self, request: Request, responses: int) -> None:
        if request.worker:
            self._out.append(Send(request.worker, Credit(request.attempt, request.item, responses)))
        elif request.version.graph is not None:
            self._ensembles.consumed(request, responses)

    def executed(self, instance: Instance, message: Executed, now: float) -> None:
        """A worker has finished a batch. Raises ProtocolError."""
        attempt = instance.attempts.get(message.attempt)
        if attempt is None:
            return
        if len(message.results) != len(attempt.requests):
            raise ProtocolError("a result for each request belongs in Executed")
        began, inputs_ready, outputs_computed, done = message.times
        if not 0 <= began <= inputs_ready <= outputs_computed <= done <= (now + 1) * 1e9:
            raise ProtocolError(f"the times of an execution run forward, not {message.times}")
        del instance.attempts[message.attempt]
        version = instance.version
        instance.busy_since = now
        if version in self._timed:
            self._settle_timed(version)
        instance.executed((done - began) / 1e9)
        batch = sum([request.batch for request in attempt.requests])
        epoch_ms = int((now + self._observer.epoch_offset) * 1000)
        version.statistics.executed(batch, message.times, epoch_ms)
        if version.devices:
            version.devices[instance.spec.device].executed(batch, message.times, epoch_ms)
        for index, (request, result) in enumerate(zip(attempt.requests, message.results, strict=True)):
            request.times = message.times
            if request.is_done or (version.sequences is not None and self._goes_on(request, result, now)):
                continue
            is_silent = result.code == ErrorCode.OK and not result.part
            if is_silent or not self._deliver(request, result, now):
                instance.streams[attempt.number, index] = request
        self._touched[version] = None

    def _settle_timed(self, version: Version) -> None:
        """Look after a version's executions only while there are some."""
        if not any(instance.attempts for instance in version.instances):
            self._timed.discard(version)

    def responded(self, instance: Instance, message: Responded, now: float) -> None:
        """A model has sent a response by itself, before or after its execute returned."""
        key = (message.attempt, message.item)
        attempt = instance.attempts.get(message.attempt)
        if attempt is not None and 0 <= message.item < len(attempt.requests):
            request = attempt.requests[message.item]
            began, ended = int(attempt.sent * 1e9), int(now * 1e9)
            request.times = (began, began, ended, ended)  # as far as is known before execute returns
        elif key in instance.streams:
            request = instance.streams[key]
        else:
            return
        if request.is_done:
            return
        if self._deliver(request, message.result, now):
            instance.streams.pop(key, None)

    def tensors(self, instance: Instance, message: TensorsTraced) -> None:
        """A worker tells the tensors of a request that is traced."""
        attempt = instance.attempts.get(message.attempt)
        if attempt is not None and 0 <= message.item < len(attempt.requests):
            self._observer.tensors(attempt.requests[message.item], message)
        elif (message.attempt, message.item) in instance.streams:
            self._observer.tensors(instance.streams[message.attempt, message.item], message)

    def worker_lost(self, instance: Instance, death: Death, now: float) -> None:
        """A worker is dead (its process is gone): what it held is retried or answered."""
        attempts = sorted(instance.attempts.values(), key=lambda a: a.number)
        held = [request for attempt in attempts for request in attempt.requests if not request.is_done]
        streams = list(instance.streams.values())
        instance.attempts.clear()
        instance.streams.clear()
        self._settle_timed(instance.version)
        again: list[Request] = []
        for request in held:
            if request.is_orphan or request.is_cancelled:
                self._fail(request, ErrorCode.CANCELLED, "", "CANCELED", now)
            elif request.attempt > death.started or self._may_retry(request, death):
                again.append(request)
            else:
                self._fail(request, ErrorCode.UNAVAILABLE, _obituary(instance, death), "BACKEND", now)
        for request in streams:
            self._fail(request, ErrorCode.UNAVAILABLE, _obituary(instance, death), "BACKEND", now)
        for request in reversed(again):
            self._leave_worker(request)
            instance.version.scheduler.requeue(request)
        self.dispatch(instance.version, now)

    def frontend_lost(self, peer: str, now: float) -> None:
        """A frontend is dead: nobody waits for its requests."""
        orphans = [r for (owner, _), r in self._in_flight.items() if owner == peer]
        for request in orphans:
            request.is_orphan = True  # all of them before one is answered: that may let others in order go
        for request in orphans:
            if request.worker:
                self._out.append(Send(request.worker, Abandon(request.attempt, request.item)))
            elif request.version.graph is not None:
                self._ensembles.cancel(request, now)
            elif self._unqueue(request):
                self._respond(request, _refusal(request.message, ErrorCode.CANCELLED, ""))

    def give_up(self, version: Version, reason: str, now: float) -> None:
        """Refuse everything that waits for a version that will not come back."""
        for request in version.scheduler.drain():
            self._fail(request, ErrorCode.UNAVAILABLE, reason, "OTHER", now)

    def held_regions(self) -> set[str]:
        """The regions of responses that wait for those before them."""
        held = [r.response for r in self._in_flight.values() if r.response is not None]
        return {ref.region for response in held for ref in response.outputs}.union(self._ensembles.held_regions())

    # ------------------------------------------------------------------------------------------- dispatch

    def dispatch_touched(self, now: float) -> None:
        """Dispatch what requests and executions have touched: once for all the messages that came together."""
        while self._touched:  # ensembles touch the models of their steps
            touched, self._touched = self._touched, {}
            for version in touched:
                self.dispatch(version, now)

    def dispatch(self, version: Version, now: float) -> None:
        """Give queued requests to instances that may take them. Called after every change of state."""
        if version.graph is not None:
            self._ensembles.start(version, version.graph, now)
            return
        if version.sequences is not None:
            self._survey(version.sequences, version.instances, now)
        scheduler = version.scheduler
        for request in scheduler.expire(now):
            self._fail(request, ErrorCode.UNAVAILABLE, "Request timeout expired", "REJECTED", now)
        deadline = None
        while scheduler:
            instance = self._pick(version, now)
            if instance is None:
                if version.is_cold:
                    self.wanted[version] = None
                break
            is_idle = not instance.attempts
            if not is_idle and version.calls:
                break  # what is called must not wait behind an execution that may be waiting for it
            batch = scheduler.next_batch(now, is_idle)
            if not batch:
                deadline = scheduler.deadline() if is_idle else None
                break
            self._execute(instance, batch, now)
        self._set_alarm(version, deadline, scheduler.next_expiry())

    def _pick(self, version: Version, now: float) -> Instance | None:
        """An instance that may take a batch; the rate limiter has a say in it."""
        return version.pick()

    def _survey(self, sequences: SequenceScheduler, instances: list[Instance], now: float) -> None:
        """Let a sequence scheduler see what has changed, and tell those whom it gives up."""
        for refusal in sequences.survey(instances, now):
            self._fail(*refusal, now)
        while sequences.warnings:
            self._out.append(Emit("W", sequences.warnings.pop(0)))

    def _set_alarm(self, version: Version, *times: float | None) -> None:
        """Look at the version again at the earliest of these times."""
        given = [time for time in times if time is not None]
        if given:
            self._alarms[version] = min(given)
        elif self._alarms:
            self._alarms.pop(version, None)

    def tick(self, now: float) -> None:
        """Dispatch what has waited long enough; kill workers that hang."""
        for version in [v for v, alarm in self._alarms.items() if alarm <= now]:
            self.dispatch(version, now)
        for version in self._timed:
            self._check_hung(version, now)

    def refuse_outages(self, now: float) -> None:
        """Refuse what nobody will execute: about once a second.

        That is what has waited too long for models of which no instance is alive, and calls between models that wait
        for themselves since instances have gone.
        """
        for version in [version for model in self._models.values() for version in model.all_versions()]:
            self.refuse_outage(version, now)
            for call in [call for instance in version.instances for call in instance.calls]:
                self._refuse_deadlock(call, now)

    def refuse_outage(self, version: Version, now: float) -> None:
        """Refuse what waits for a version that is out; called when an instance has failed to come back."""
        if version.scheduler and _is_out(version, now):
            self.give_up(version, answers.not_ready(version.model, version.number), now)

    def next_deadline(self) -> float | None:
        """When `tick` has something to do."""
        deadlines = list(self._alarms.values())
        for version in self._timed:
            limit = version.execution_timeout or 0.0
            deadlines += [i.busy_since + limit for i in version.instances if i.attempts and i.reason != HUNG]
        return min(deadlines, default=None)

    def _check_hung(self, version: Version, now: float) -> None:
        limit = version.execution_timeout or 0.0
        for instance in version.instances:
            if instance.attempts and now - instance.busy_since >= limit and instance.reason != HUNG:
                instance.reason = HUNG
                text = f"{instance.key}: {HUNG}, killing the worker (pid {instance.pid})"
                self._out += [Emit("W", text), Kill(instance.peer)]

    def _execute(self, instance: Instance, batch: list[Request], now: float) -> None:
        self._attempts = number = self._attempts + 1
        peer, version = instance.peer, instance.version
        if not instance.attempts:
            instance.busy_since = now
        instance.attempts[number] = Attempt(number, batch, now)
        version.executing += len(batch)
        if version.execution_timeout is not None:
            self._timed.add(version)
        for index, request in enumerate(batch):
            request.worker, request.attempt, request.item = peer, number, index
        if version.pins:
            self._ensembles.lend(peer, batch)
        if self._cache is not None and version.is_cached:
            self._cache.keep(peer, number, batch)
        items = tuple([self._item(request) for request in batch])
        slots: tuple[int, ...] = ()
        if version.sequences is not None:
            slots = version.sequences.slots(batch)
            version.executing -= sum(request.is_done for request in batch)  # rows of nobody
        self._out.append(Send(peer, Execute(number, items, slots)))

    def _item(self, request: Request) -> Item:
        m = request.message
        return Item(
            m.request_id,
            request.inputs,
            m.outputs,
            m.parameters,
            m.correlation_id,
            m.flags,
            m.priority,
            m.timeout_us,
            request.peer,
            m.targets,
            "" if request.trace is None else self._observer.context(request.trace, m.tracestate),
        )

    # ------------------------------------------------------------------------------------------- responses

    def _goes_on(self, request: Request, result: Result, now: float) -> bool:
        """Whether a request of a sequence is to be executed once more. Raises ProtocolError."""
        sequences = request.version.sequences
        if not result.part & Part.AGAIN or result.code != ErrorCode.OK:
            return False
        if not sequences.is_iterative:
            raise ProtocolError("only requests of iterative sequences are executed again")
        self._leave_worker(request)
        if request.is_cancelled or request.is_orphan:
            self._fail(request, ErrorCode.CANCELLED, "", "CANCELED", now)
        else:
            sequences.again(request)
        return True

    def _deliver(self, request: Request, result: Result, now: float) -> bool:
        """One response from a worker goes to the client. True when it was the last."""
        if result.code != ErrorCode.OK:
            code = result.code if result.code in ErrorCode.__members__.values() else ErrorCode.UNKNOWN
            self._fail(request, ErrorCode(code), result.error, "BACKEND", now)
            return True
        version = request.version
        outputs: tuple[TensorRef, ...] = result.outputs
        if version.validator.reshapes_outputs:
            outputs = tuple([restore_shape(version.signature, ref) for ref in outputs])
        request.ended = now
        if not request.responses:
            version.statistics.latencies.responded(now - request.message.received)
            if version.devices:
                version.share(request.worker).latencies.responded(now - request.message.received)
        response = Response(
            request.message.request,
            ErrorCode.OK,
            "",
            version.model,
            version.number,
            outputs,
            result.parameters,
            result.part,
        )
        if result.part & _FINAL:
            queued = max(0, request.times[0] - int(request.enqueued * 1e9))
            total = int((now - request.message.received) * 1e9)
            version.statistics.succeeded(request.batch, total, queued, request.times, now)
            if version.devices:
                version.share(request.worker).succeeded(request.batch, total, queued, request.times, now)
            self._respond(request, response)
            return True
        request.responses += 1
        if request.step is not None:
            self._ensembles.responded(request.step, request, response)
        elif not request.is_orphan:
            self._out.append(Send(request.peer, response))
        return False

    def _answer(self, request: Request, result: Result, now: float) -> None:
        """A response of an ensemble."""
        if result.part & _FINAL:
            epoch_ms = int((now + self._observer.epoch_offset) * 1000)
            request.version.statistics.executed(request.batch, request.times, epoch_ms)
        self._deliver(request, result, now)

    def _fail(self, request: Request, code: ErrorCode, error: str, reason: str, now: float) -> None:
        request.ended = now
        total = int((now - request.message.received) * 1e9)
        request.version.statistics.failed(reason, total)
        if request.version.devices:
            request.version.share(request.worker).failed(reason, total)
        self._respond(request, _refusal(request.message, code, error))

    def _leave_worker(self, request: Request) -> None:
        if request.worker:
            request.worker = ""
            request.version.executing -= 1

    def _respond(self, request: Request, response: Response) -> None:
        """Send the final response, or keep it until those before it have left (preserve_ordering)."""
        request.is_done = True
        self._leave_worker(request)
        if not request.is_ordered:
            self._close(request, response)
            return
        request.response = response
        order = request.version.order
        while order and (ready := order[0].response) is not None:
            self._close(order.popleft(), ready)

    def _close(self, request: Request, response: Response) -> None:
        del self._in_flight[request.peer, request.message.request]
        if request.caller is not None:
            request.version.calls -= 1
            request.caller.calls.discard(request)
        if request.client_regions:
            self._release(request.client_regions)
        if request.trace is not None and is_delivery_traced(request):
            response = response._replace(part=response.part | Part.TRACED)
        if request.trace is not None or self._observer.logs_access:
            self._observer.answered(request, response)
        if request.step is not None:
            self._ensembles.responded(request.step, request, response)
        elif not request.is_orphan:
            self._out.append(Send(request.peer, response))

    def _release(self, used: tuple[int, ...]) -> None:
        if used:
            workers = [i.peer for m in self._models.values() for v in m.all_versions() for i in v.instances if i.pid]
            self._out += self._client_regions.release(used, workers)

    def _may_retry(self, request: Request, death: Death) -> bool:
        """Once more, alone, for a request that was being executed when its worker died.

        One that was finished, so that only its answer got lost, is not to blame.
        """
        if not request.version.retries_started or request.responses or request.message.targets or request.has_called:
            return False
        if request.attempt < death.started:
            return True
        if death.is_outside:
            request.kills += 1
            return request.kills <= MAX_KILLS
        request.crashes += 1
        return request.crashes == 1


def _is_out(version: Version, now: float) -> bool:
    """No instance has been alive for long, and none is coming."""
    return version.down_since is not None and now - version.down_since > OUTAGE_SECONDS and not version.is_coming


def _refusal(infer: Infer, code: ErrorCode, error: str) -> Response:
    return Response(infer.request, code, error, infer.model, infer.version, (), {})


def _enqueue(request: Request) -> None:
    """Give a request to its scheduler. Raises Rejected."""
    try:
        request.version.scheduler.enqueue(request)
    except QueueFull:
        text = f"{prefix(request.message.request_id)}Exceeds maximum queue size"
        raise Rejected(text, ErrorCode.UNAVAILABLE) from None


def _obituary(instance: Instance, death: Death) -> str:
    text = f"the worker of instance '{instance.key}' died while executing the request: {instance.reason or death.text}"
    return f"{text}; last output: {' | '.join(death.last_lines)}" if death.last_lines else text
