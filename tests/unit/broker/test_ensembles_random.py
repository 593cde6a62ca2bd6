"""Random ensembles under random trouble, against an interpreter that knows nothing of requests, workers or memory."""

from dataclasses import dataclass, field

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from broker.messages import ErrorCode, Part
from configs.description import EnsembleStep, ModelDescription
from tests.unit.broker.ensemble_world import Asked, EnsembleWorld, Step, ensemble, model

MODELS = {
    f"m{inputs}{outputs}": model(f"m{inputs}{outputs}", " ".join("ABC"[:inputs]), " ".join("PQ"[:outputs]))
    for inputs in (1, 2, 3)
    for outputs in (1, 2)
}
MANY = model("many", "A", "P", decoupled=True)
INNER = ensemble("inner", "A", "P", Step("m11", {"A": "A"}, {"P": "t"}), Step("m21", {"A": "t", "B": "A"}, {"P": "P"}))
ALL = {**MODELS, "many": MANY, "inner": INNER}
RESPONSES = 3


@dataclass
class Drawing:
    """An ensemble as it is drawn: the tensors so far, and which of them nobody reads yet."""

    draw: st.DataObject
    inputs: list[str] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    tensors: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)

    def add(self, name: str, sources: list[str]) -> None:
        index = len(self.steps)
        spec = ALL[name]
        outputs = {each.name: f"t{index}{each.name}" for each in spec.outputs}
        self.steps.append(Step(name, {i.name: s for i, s in zip(spec.inputs, sources, strict=True)}, outputs))
        self.unread = [tensor for tensor in self.unread if tensor not in sources] + list(outputs.values())
        self.tensors += outputs.values()

    def some(self, count: int) -> None:
        for _ in range(count):
            name = self.draw.draw(st.sampled_from([*MODELS, "inner"]))
            self.add(name, [self.draw.draw(st.sampled_from(self.tensors)) for _ in ALL[name].inputs])

    def join(self) -> str:
        """One tensor that everything so far goes into."""
        while len(self.unread) > 1:
            self.add("m21", self.unread[:2])
        return self.unread[0]


def drawn(data: st.DataObject) -> ModelDescription:
    """An ensemble, with a decoupled step in its middle or without."""
    drawing = Drawing(data, inputs=["X", "Y"], tensors=["X", "Y"], unread=["X", "Y"])
    drawing.some(data.draw(st.integers(0, 4)))
    if data.draw(st.booleans()):
        source = drawing.join()
        drawing.add("many", [source])
        drawing.tensors = drawing.tensors[-1:]
        drawing.some(data.draw(st.integers(0, 3)))
    elif drawing.unread[:1] in (["X"], ["Y"]):
        drawing.join()
    if set(drawing.unread) & {"X", "Y"}:
        drawing.join()
    outputs = set(drawing.unread) | {t for t in drawing.tensors if t not in "XY" and data.draw(st.booleans())}
    steps = data.draw(st.permutations(drawing.steps))
    return ensemble("drawn", "X Y", " ".join(sorted(outputs)), *steps)


def expected(description: ModelDescription, wanted: tuple[str, ...]) -> list[dict[str, str]]:
    """The results, straight from the definition."""
    producers = {tensor: step for step in description.steps for _, tensor in step.outputs}
    names = wanted or tuple(spec.name for spec in description.outputs)
    streams = any(_needs_stream(name, producers) for name in names)
    return [
        {name: _term(name, producers, str(number)) for name in names} for number in range(RESPONSES if streams else 1)
    ]


def _needs_stream(tensor: str, producers: dict[str, EnsembleStep]) -> bool:
    step = producers.get(tensor)
    return step is not None and (step.model == "many" or any(_needs_stream(t, producers) for _, t in step.inputs))


def _term(tensor: str, producers: dict[str, EnsembleStep], number: str) -> str:
    step = producers.get(tensor)
    if step is None:
        return tensor
    name = next(output for output, made in step.outputs if made == tensor)
    order = [spec.name for spec in ALL[step.model].inputs]
    values = {i: _term(t, producers, number) for i, t in step.inputs}
    if step.model == "inner":
        return f"m21.P(A=m11.P(A={values['A']}), B={values['A']})"
    terms = [f"{i}={values[i]}" for i in order] + ([number] if step.model == "many" else [])
    return f"{step.model}.{name}({', '.join(terms)})"


@settings(deadline=None, max_examples=80, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(st.data())
def test_every_ensemble_computes_what_it_says(data: st.DataObject) -> None:
    description = drawn(data)
    world = EnsembleWorld(*ALL.values(), description)
    world.answers["many"] = RESPONSES
    assert world.state("drawn") == ("READY", "")
    names = [spec.name for spec in description.outputs]
    wanted = [
        tuple(data.draw(st.lists(st.sampled_from(names), unique=True))) for _ in range(data.draw(st.integers(1, 3)))
    ]
    asked = [world.ask("drawn", "X Y", outputs=each) for each in wanted]
    while busy := world.busy():
        world.work(data.draw(st.sampled_from(busy)))
    for each, outputs in zip(asked, wanted, strict=True):
        results = sorted(map(repr, [dict(sorted(result.items())) for result in each.results]))
        assert results == sorted(map(repr, [dict(sorted(result.items())) for result in expected(description, outputs)]))
    world.check_settled()


@settings(deadline=None, max_examples=80, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(st.data())
def test_whatever_happens_every_request_is_answered_once_and_no_memory_is_left(data: st.DataObject) -> None:
    description = drawn(data)
    world = EnsembleWorld(*ALL.values(), description, rate_limit=data.draw(st.sampled_from(["off", "execution_count"])))
    world.answers["many"] = RESPONSES
    asked = [world.ask("drawn", "X Y", request_id=str(number)) for number in range(data.draw(st.integers(1, 3)))]
    if data.draw(st.booleans()):
        world.failing[data.draw(st.sampled_from([step.model for step in description.steps]))] = (
            ErrorCode.INTERNAL,
            "no",
        )
    is_troubled, cancelled = bool(world.failing), set[int]()
    for _ in range(40):
        if not world.busy():
            break
        is_troubled |= _something(world, data, asked, cancelled)
    world.settle()
    for each in asked:
        if each.number in world.gone:
            continue
        _check_answer(each, description, is_troubled, each.number in cancelled)
    world.check_settled()


def _something(world: EnsembleWorld, data: st.DataObject, asked: list[Asked], cancelled: set[int]) -> bool:
    """Something happens; True when it may make requests fail."""
    what = data.draw(st.sampled_from(["work"] * 6 + ["kill", "kill", "cancel", "cancel", "frontend"]))
    if what == "work":
        world.work(data.draw(st.sampled_from(world.busy())))
    elif what == "kill":
        world.kill(data.draw(st.sampled_from(world.busy())), data.draw(st.booleans()))
    elif what == "frontend":
        world.kill_frontend()
    else:
        each = data.draw(st.sampled_from(asked))
        if world.is_open(each):
            cancelled.add(each.number)
            world.cancel(each)
    return what == "kill"


def _check_answer(asked: Asked, description: ModelDescription, is_troubled: bool, is_cancelled: bool) -> None:
    assert asked.parts[-1] & Part.FINAL
    results = [result for result in asked.results if isinstance(result, dict)]
    allowed = expected(description, ())
    assert all(result in allowed for result in results)
    if len(results) < len(allowed):
        code, error = asked.results[-1]
        assert code is ErrorCode.CANCELLED if is_cancelled else is_troubled
        assert is_cancelled or error.startswith("in ensemble 'drawn', ")
