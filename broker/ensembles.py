"""Requests to ensembles while they run: each step is a request of its own, and starts when its inputs are there.

Tensors stay in the arenas of those who made them. The outputs of steps are held (`blocks`) until the last that reads
them is done, or are passed on to the client. An ensemble's final response leaves when no step is under way any more,
so that the client's own inputs are read by nobody then. Pure.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

from broker import answers
from broker.blocks import Blocks
from broker.graph import RESPONSE, Graph, Task
from broker.messages import COMPLETE, ErrorCode, Infer, Part, Response, Result
from broker.models import Model, Version
from broker.request import Request
from broker.runs import Pass, Run, Step, adopt_sequence, fitted, sequence_of, stamps, targets
from broker.validation import Rejected
from shm.ref import TensorRef

_CONTENT, _FINAL = Part.CONTENT.value, Part.FINAL.value  # compared as integers: for every response


class Hooks(NamedTuple):
    """What `requests` does for ensembles."""

    submit: Callable[[Step, Infer, Version, float], None]
    """Accept a request of a step. Raises Rejected."""
    deliver: Callable[[Request, Result, float], Any]
    """Answer a request to an ensemble."""
    fail: Callable[[Request, ErrorCode, str, str, float], None]
    """Answer it with an error; the fourth argument is the reason for the statistics."""
    cancel: Callable[[Request, float], None]
    """Nobody waits for the answer to a step's request any more."""
    consumed: Callable[[Request, int], None]
    """So many responses of a step's request have gone their way."""


class Ensembles:
    """All that run."""

    def __init__(self, models: dict[str, Model], blocks: Blocks, hooks: Hooks) -> None:
        """`models` is shared."""
        self._models = models
        self._blocks = blocks
        self._hooks = hooks
        self._runs: dict[Request, Run] = {}
        self._numbers = 0

    # ------------------------------------------------------------------------------------------- events

    def start(self, version: Version, graph: Graph, now: float) -> None:
        """Begin with what is queued for an ensemble."""
        for request in version.scheduler.drain():
            self._begin(request, graph, now)

    def responded(self, step: Step, request: Request, response: Response) -> None:
        """The request of a step is answered, or has a response."""
        run, now = step.way.run, request.ended
        if response.code != ErrorCode.OK:
            self._fail(run, ErrorCode(response.code), response.error, now)
        elif response.part & _CONTENT:
            self._take(step, response)
        if response.part & _FINAL or response.code != ErrorCode.OK:
            self._finish_step(step, request)
        self._advance(run, now)

    def cancel(self, request: Request, now: float) -> None:
        """Nobody waits for an ensemble any more: steps that wait are given up, others are awaited."""
        run = self._runs.get(request)
        if run is not None:
            self._end(run, now)
            self._advance(run, now)
        elif request.version.scheduler.remove(request):  # it has not begun
            self._hooks.fail(request, ErrorCode.CANCELLED, "", "CANCELED", now)

    def consumed(self, request: Request, responses: int) -> None:
        """The client of an ensemble has taken responses: the decoupled steps may send as many more."""
        run = self._runs.get(request)
        while run is not None and run.unconsumed and responses:
            responses -= 1
            self._close(run.unconsumed.popleft())

    def lend(self, worker: str, batch: Sequence[Request]) -> None:
        """A worker is about to execute these."""
        for request in batch:
            if request.step is not None:
                self._blocks.announce(request.inputs, worker)

    def held_regions(self) -> Collection[str]:
        """The regions of tensors that steps are still to read."""
        return self._blocks.regions

    # ------------------------------------------------------------------------------------------- a run

    def _begin(self, request: Request, graph: Graph, now: float) -> None:
        message = request.message
        run = self._runs[request] = Run(request, graph, graph.plan(message.outputs))
        request.version.executing += 1
        try:
            for task in run.plan.tasks:
                if task.index != RESPONSE:
                    step = graph.steps[task.index]
                    version = run.versions[task.index] = answers.look_up(self._models, step.model, step.version)
                    version.pins += 1
        except Rejected as error:
            self._fail(run, error.code, str(error), now)
        else:
            way = self._pass(run, 0, None, message.correlation_id, message.flags)
            given: dict[str, TensorRef | None] = dict.fromkeys(graph.inputs)
            given |= {ref.name: ref for ref in request.inputs}
            for ref in request.inputs:
                self._blocks.share(ref, len(run.plan.readers.get(ref.name, ())))
            self._arrive(way, given)
        self._advance(run, now)

    def _pass(self, run: Run, label: int, origin: Step | None, correlation_id: int | str, flags: int) -> Pass:
        tasks = run.plan.by_label.get(label, ())
        waiting = {task: len(task.tensors) for task in tasks}
        way = Pass(run, origin, correlation_id, flags, waiting=waiting, open=len(waiting))
        run.passes.add(way)
        return way

    def _advance(self, run: Run, now: float) -> None:
        """Start what can be started; answer when nothing is left to be done."""
        if run.is_advancing or run.request not in self._runs:
            return
        run.is_advancing = True
        while run.todo:
            self._start(*run.todo.popleft(), now)
        run.is_advancing = False
        if not run.steps:
            self._conclude(run, now)
        elif run.response is not None and run.graph.decoupled:
            self._respond(run, _CONTENT, now)

    def _arrive(self, way: Pass, tensors: dict[str, TensorRef | None]) -> None:
        """Tensors are there, or known to be absent: tasks that have all of theirs can start."""
        way.tensors |= tensors
        readers, waiting = way.run.plan.readers, way.waiting
        for tensor in tensors:
            for task in readers.get(tensor, ()):
                waiting[task] -= 1
                if not waiting[task]:
                    del waiting[task]
                    way.run.todo.append((task, way))

    def _start(self, task: Task, way: Pass, now: float) -> None:
        run = way.run
        if task.index == RESPONSE:
            if run.response is not None:
                self._respond(run, _CONTENT, now)
            run.response = (way, self._result(task, way))
            return
        step = Step(task, way)
        run.steps.add(step)
        try:
            self._hooks.submit(step, self._infer(task, way, now), run.versions[task.index], now)
        except Rejected as error:
            run.steps.discard(step)
            self._drop(task, way)
            self._fail(run, error.code, str(error), now)

    def _infer(self, task: Task, way: Pass, now: float) -> Infer:
        """The request of a step: the client's, but for the tensors."""
        self._numbers += 1
        message = way.run.request.message
        version = way.run.versions[task.index]
        dims = {spec.name: spec.dims for spec in version.signature.inputs}
        return Infer(
            request=self._numbers,
            model=version.model,
            version=version.number,
            request_id=message.request_id,
            inputs=fitted(task, way, dims, version.signature.max_batch_size > 0),
            outputs=tuple(task.outputs),
            parameters=message.parameters,
            correlation_id=way.correlation_id,
            flags=way.flags,
            priority=message.priority,
            timeout_us=message.timeout_us,
            is_raw=False,
            received=now,
            targets=targets(task, message.targets) if message.targets else (),
            traceparent=message.traceparent,
            tracestate=message.tracestate,
            attempt=message.attempt,
        )

    def _result(self, task: Task, way: Pass) -> Result:
        signature = way.run.request.version.signature
        dims = {spec.name: spec.dims if spec.reshape is None else spec.reshape for spec in signature.outputs}
        outputs = fitted(task, way, dims, signature.max_batch_size > 0)
        return Result(ErrorCode.OK, "", outputs, sequence_of(way) if outputs else {})

    def _respond(self, run: Run, part: int, now: float) -> None:
        """The next response goes to whoever asked; what it reads is passed on with it."""
        assert run.response is not None
        (way, result), run.response = run.response, None
        request = run.request
        if request.step is None:
            for ref in result.outputs:
                self._blocks.pass_on(ref, request.peer)
        run.unconsumed.append(way)
        self._hooks.deliver(request, result if result.part == part else result._replace(part=part), now)
        if request.step is not None:  # the ensemble around this one holds them now
            for ref in result.outputs:
                self._blocks.drop(ref)

    # ------------------------------------------------------------------------------------------- steps

    def _take(self, step: Step, response: Response) -> None:
        """A response of a step: its outputs are tensors of the ensemble."""
        run, way, task = step.way.run, step.way, step.task
        if run.is_ending:
            for ref in response.outputs:
                self._blocks.hold(ref, 0)
            return
        if task.index in run.graph.decoupled:
            way = self._pass(run, task.index + 1, step, way.correlation_id, way.flags)
        given: dict[str, TensorRef | None] = {}
        for ref in response.outputs:
            tensor = task.outputs.get(ref.name, "")
            is_wanted = tensor and tensor not in given and tensor not in way.tensors
            self._blocks.hold(ref, len(run.plan.readers[tensor]) if is_wanted else 0)
            if is_wanted:
                given[tensor] = ref
        if response.parameters:
            adopt_sequence(way, response.parameters)
        for tensor in task.outputs.values() if len(given) < len(task.outputs) else ():
            if tensor not in way.tensors:
                given.setdefault(tensor, None)
        self._arrive(way, given)

    def _finish_step(self, step: Step, request: Request) -> None:
        run = step.way.run
        run.steps.discard(step)
        self._drop(step.task, step.way)
        if step.task.index not in run.graph.decoupled and not run.is_ending:  # outputs that have not come will not
            absent = [tensor for tensor in step.task.outputs.values() if tensor not in step.way.tensors]
            self._arrive(step.way, dict.fromkeys(absent))
        began, inputs_ready, outputs_computed, done = request.times
        inputs, infer, outputs = run.times
        run.times = (
            inputs + inputs_ready - began,
            infer + outputs_computed - inputs_ready,
            outputs + done - outputs_computed,
        )
        self._close(step.way)

    def _drop(self, task: Task, way: Pass) -> None:
        """A task does not need its inputs any more."""
        for tensor in task.tensors:
            ref = way.tensors.get(tensor)
            if ref is not None:
                self._blocks.drop(ref)

    def _close(self, way: Pass) -> None:
        """A task is done. After the last the decoupled step behind the pass may send one more response."""
        way.open -= 1
        if not way.open:
            way.run.passes.discard(way)
            if way.origin is not None and way.origin.request is not None:
                self._hooks.consumed(way.origin.request, 1)

    # ------------------------------------------------------------------------------------------- the end

    def _fail(self, run: Run, code: ErrorCode, error: str, now: float) -> None:
        """The first error is the ensemble's."""
        if run.error is None:
            run.error = (code, error)
        self._end(run, now)

    def _end(self, run: Run, now: float) -> None:
        """Start nothing new and give up what waits."""
        if run.is_ending:
            return
        run.is_ending = True
        for way in run.passes:
            for task in way.waiting:
                self._drop(task, way)
        for task, way in run.todo:
            self._drop(task, way)
        run.todo.clear()
        if run.response is not None:
            for ref in run.response[1].outputs:
                self._blocks.drop(ref)
            run.response = None
        for step in list(run.steps):
            if step.request is not None:
                self._hooks.cancel(step.request, now)

    def _conclude(self, run: Run, now: float) -> None:
        """The one final response."""
        request = run.request
        del self._runs[request]
        request.version.executing -= 1
        for version in run.versions.values():
            version.pins -= 1
        if run.error is not None and not request.is_cancelled:
            code, text = run.error
            self._hooks.fail(request, code, f"in ensemble '{request.version.model}', {text}", "OTHER", now)
        elif run.is_ending:
            self._hooks.fail(request, ErrorCode.CANCELLED, "", "CANCELED", now)
        else:
            request.times = stamps(int(request.enqueued * 1e9), run.times)
            if run.response is not None:
                self._respond(run, COMPLETE, now)
            else:
                self._hooks.deliver(request, Result(ErrorCode.OK, "", (), {}, Part.FINAL), now)
