"""The rate limiter: models that share a resource."""

from tests.golden.build import get, infer, one, tensor
from tests.golden.scenario import Http, Pause, Scenario, Step

NEXT = Pause(0.02)
"""Long enough for the order of requests on different connections."""


def ask(model: str, milliseconds: int) -> Http:
    """A request that takes so long, which the next step does not wait for."""
    inputs = [tensor("MILLISECONDS", "INT32", [1, 1], [milliseconds])]
    return infer(model, {"id": f"{model} {milliseconds}", "inputs": inputs})._replace(is_background=True)


def in_turn(*requests: tuple[str, int]) -> tuple[Step, ...]:
    """These come one after the other, the first of them while nobody executes."""
    return tuple(step for request in requests for step in (ask(*request), NEXT))


SCENARIOS: list[Scenario] = [
    one("config", get("/v2/models/holder/config")),
    one("one resource", *in_turn(("holder", 300), ("waiter", 1))),
    one("by priority", *in_turn(("holder", 400), ("waiter", 1), ("waiter", 2), ("hurried", 3), ("hurried", 4))),
]
