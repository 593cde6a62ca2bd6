"""Which requests are executed together, in which order they are answered, and what warm-up leaves behind."""

from typing import Any

from tests.golden.build import get, infer, int32, one, proto_infer, proto_tensor, stream, tensor
from tests.golden.scenario import Http, Pause, Scenario, Step

SETTLED = Pause(0.15)
NEXT = Pause(0.02)
"""Long enough for the order of requests on different connections."""


def ask(model: str, *numbers: int, name: str = "NUMBERS") -> Http:
    """A request of one row that the next step does not wait for."""
    document = {"id": str(numbers[0]), "inputs": [tensor(name, "INT32", [1, len(numbers)], list(numbers))]}
    return infer(model, document)._replace(is_background=True)


def message(model: str, *numbers: int) -> Any:
    """The same for a stream."""
    tensors = [proto_tensor("NUMBERS", "INT32", [1, len(numbers)])]
    return proto_infer(model, tensors, [int32(*numbers)], id=str(numbers[0]))


def queued(model: str, *requests: tuple[int, ...]) -> tuple[Step, ...]:
    """These come one after the other while a request of 0.5 s is executed."""
    steps: list[Step] = [ask(model, -500), SETTLED]
    for numbers in requests:
        steps += [ask(model, *numbers), NEXT]
    return (*steps[:-1], Pause(1.0))


SCENARIOS: list[Scenario] = [
    *[one(f"config of {model}", get(f"/v2/models/{model}/config")) for model in ("gathered", "uneven", "warmed")],
    one(
        "preferred size and the rest",
        *queued("gathered", *[(number,) for number in range(7)]),
        get("/v2/models/gathered/stats"),
    ),
    one("delay", ask("gathered", 1), NEXT, ask("gathered", 2), NEXT, ask("gathered", 3)),
    one("unequal shapes", *queued("gathered", (1,), (2,), (3, 3), (4, 4))),
    one("ragged", *queued("uneven", (1,), (2, 2), (3, 3, 3))),
    one("in order", stream(message("in_order", -300), message("in_order", 1), message("in_order", 2))),
    one(
        "warmed up",
        get("/v2/models/warmed/stats"),
        infer("warmed", {"inputs": [tensor("IN", "INT32", [1, 2], [1, 2])]}),
        get("/v2/models/warmed/stats"),
    ),
]
