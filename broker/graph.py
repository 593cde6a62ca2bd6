"""The data-flow graph of an ensemble: which steps the wanted outputs need, and what each step gives and gets. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from configs.description import EnsembleStep

RESPONSE = -1
"""The index of the task that takes the wanted outputs to whoever asked for them."""


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """One step as far as it is needed, or the response.

    `inputs` are pairs (input of the model, tensor), `outputs` the outputs of the model that are needed, with tensors.
    """

    index: int
    inputs: tuple[tuple[str, str], ...]
    outputs: Mapping[str, str]
    tensors: tuple[str, ...]  # that it reads, each once


class Plan:
    """What is to be done for a set of outputs."""

    def __init__(self, tasks: Iterable[Task], labels: Mapping[str, int]) -> None:
        """`labels` says of each tensor which decoupled step it comes from, see `Graph.labels`."""
        self.tasks = tuple(tasks)
        self.readers: dict[str, list[Task]] = {}  # by tensor
        self.by_label: dict[int, list[Task]] = {}
        for task in self.tasks:
            for tensor in task.tensors:
                self.readers.setdefault(tensor, []).append(task)
            label = labels[task.tensors[0]] if task.tensors else 0
            self.by_label.setdefault(label, []).append(task)


class Graph:
    """The steps of one ensemble; `decoupled` are the indices of those that send any number of responses."""

    def __init__(
        self,
        inputs: Iterable[str],
        outputs: Iterable[str],
        steps: Iterable[EnsembleStep],
        decoupled: Iterable[int],
        depth: int = 1,
    ) -> None:
        """The steps are known to make a graph without loops (`configs.ensemble`). `depth`: levels of ensembles."""
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self.steps = tuple(steps)
        self.decoupled = frozenset(decoupled)
        self.depth = depth
        self._plans: dict[frozenset[str], Plan] = {}

    @cached_property
    def labels(self) -> dict[str, int]:
        """Where each tensor comes from: 0 the request, else 1 + the decoupled step whose responses it follows from.

        Each response of a decoupled step goes its own way through the rest of the graph. Raises Mixed.
        """
        found = dict.fromkeys(self.inputs, 0)
        pending = set(range(len(self.steps)))
        while ready := [i for i in pending if all(tensor in found for _, tensor in self.steps[i].inputs)]:
            for index in ready:
                step = self.steps[index]
                label = self._common([found[tensor] for _, tensor in step.inputs])
                for _, tensor in step.outputs:
                    found[tensor] = index + 1 if index in self.decoupled else label
            pending.difference_update(ready)
        self._common([found[name] for name in self.outputs])
        return found

    def plan(self, wanted: Iterable[str]) -> Plan:
        """What these outputs need (none named: all)."""
        names = frozenset(wanted) or frozenset(self.outputs)
        plan = self._plans.get(names)
        if plan is None:
            plan = self._plans[names] = self._plan(names)
        return plan

    def _plan(self, names: frozenset[str]) -> Plan:
        needed = set(names)
        producers = {tensor: i for i, step in enumerate(self.steps) for _, tensor in step.outputs}
        way = [producers[name] for name in names if name in producers]
        chosen: set[int] = set()
        while way:
            index = way.pop()
            if index not in chosen:
                chosen.add(index)
                tensors = [tensor for _, tensor in self.steps[index].inputs]
                needed.update(tensors)
                way += [producers[tensor] for tensor in tensors if tensor in producers]
        tasks = [self._task(index, needed) for index in sorted(chosen)]
        answer = tuple([(name, name) for name in self.outputs if name in names])
        return Plan([*tasks, _task(RESPONSE, answer, {})], self.labels)

    def _task(self, index: int, needed: set[str]) -> Task:
        step = self.steps[index]
        return _task(index, step.inputs, {name: tensor for name, tensor in step.outputs if tensor in needed})

    def _common(self, labels: list[int]) -> int:
        if len(set(labels)) > 1:
            raise Mixed
        return labels[0]


class Mixed(Exception):
    """Tensors that follow from different decoupled steps meet: which of them belong together nobody can tell."""


def _task(index: int, inputs: tuple[tuple[str, str], ...], outputs: Mapping[str, str]) -> Task:
    return Task(index, inputs, outputs, tuple(dict.fromkeys(tensor for _, tensor in inputs)))
