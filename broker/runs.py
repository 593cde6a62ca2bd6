"""One request to an ensemble while it runs: how far it is, and what its steps read and give. Pure."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from broker.graph import Graph, Plan, Task
from broker.messages import ErrorCode, Parameters, Result, Target
from broker.models import Version
from broker.request import Request
from shm.ref import TensorRef

_START, _END = 1, 2  # flags of a request in a sequence
_SEQUENCE = {"sequence_start": _START, "sequence_end": _END}
_Dims = tuple[int, ...] | None


@dataclass(slots=True, eq=False)
class Pass:
    """One way through the tasks of one label: that of the request, or of one response of a decoupled step."""

    run: "Run"
    origin: "Step | None"  # whose response it is
    correlation_id: int | str
    flags: int
    tensors: dict[str, TensorRef | None] = field(default_factory=dict)  # None: it will not come
    waiting: dict[Task, int] = field(default_factory=dict)  # not started: how many tensors they lack
    open: int = 0  # tasks that are not done


@dataclass(slots=True, eq=False)
class Step:
    """A task under way, as a request."""

    task: Task
    way: Pass
    request: Request | None = None

    @property
    def parent(self) -> Request:
        """The request to the ensemble."""
        return self.way.run.request


@dataclass(slots=True, eq=False)
class Run:
    """One request to an ensemble."""

    request: Request
    graph: Graph
    plan: Plan
    versions: dict[int, Version] = field(default_factory=dict)  # by step, as when it began
    steps: set[Step] = field(default_factory=set)  # under way
    passes: set[Pass] = field(default_factory=set)
    todo: deque[tuple[Task, Pass]] = field(default_factory=deque)  # tasks whose inputs are there
    response: tuple[Pass, Result] | None = None  # the next one
    unconsumed: deque[Pass] = field(default_factory=deque)  # of which the client has a response
    times: tuple[int, int, int] = (0, 0, 0)  # sums of the steps: input, infer, output
    error: tuple[ErrorCode, str] | None = None
    is_ending: bool = False  # nothing new is started
    is_advancing: bool = False


def fitted(task: Task, way: Pass, dims: Mapping[str, _Dims], is_batched: bool) -> tuple[TensorRef, ...]:
    """What a task reads, as its model wants it: with the model's names, and in a batch or not."""
    found = [(name, way.tensors[tensor]) for name, tensor in task.inputs]
    return tuple([_shaped(_named(ref, name), dims.get(name), is_batched) for name, ref in found if ref is not None])


def _named(ref: TensorRef, name: str) -> TensorRef:
    return ref if ref.name == name else ref._replace(name=name)


def _shaped(ref: TensorRef, dims: _Dims, is_batched: bool) -> TensorRef:
    """A tensor between models with and without a batch dimension: one of 1 is added, or taken away."""
    if dims is None:
        return ref
    missing = len(dims) + is_batched - len(ref.shape)
    if missing == 1 and is_batched:
        return ref._replace(shape=(1, *ref.shape))
    if missing == -1 and not is_batched and ref.shape[0] == 1:
        return ref._replace(shape=ref.shape[1:])
    return ref


def targets(task: Task, targets: Sequence[Target]) -> tuple[Target, ...]:
    """Where the client wants outputs of the ensemble that this step makes."""
    names = {tensor: name for name, tensor in task.outputs.items()}
    return tuple([target._replace(output=names[target.output]) for target in targets if target.output in names])


def adopt_sequence(way: Pass, parameters: dict[str, Any]) -> None:
    """A model may say with its response which sequence the rest belongs to."""
    if type(parameters.get("sequence_id")) in (int, str):
        way.correlation_id = parameters["sequence_id"]
    for name, flag in _SEQUENCE.items():
        if name in parameters:
            way.flags = way.flags | flag if parameters[name] else way.flags & ~flag


def sequence_of(way: Pass) -> Parameters:
    """What the ensemble's response says about its sequence."""
    return {"sequence_id": way.correlation_id, **{name: bool(way.flags & flag) for name, flag in _SEQUENCE.items()}}


def stamps(begin: int, parts: Sequence[int]) -> tuple[int, int, int, int]:
    """Times as of one execution, which took as long as those of the steps together."""
    inputs, infer, outputs = parts
    return begin, begin + inputs, begin + inputs + infer, begin + inputs + infer + outputs
