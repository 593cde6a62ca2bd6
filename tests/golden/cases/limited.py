"""The rate limiter: models that share a resource."""

from typing import Any

from tests.golden.build import get, int32, one, proto_infer, proto_tensor, stream
from tests.golden.scenario import Scenario


def message(model: str, milliseconds: int) -> Any:
    """A request that takes so long."""
    tensors = [proto_tensor("MILLISECONDS", "INT32", [1, 1])]
    return proto_infer(model, tensors, [int32(milliseconds)], id=f"{model} {milliseconds}")


SCENARIOS: list[Scenario] = [
    one("config", get("/v2/models/holder/config")),
    one("one resource", stream(message("holder", 300), message("waiter", 1))),
    one("by turns", stream(*[message("waiter", n) for n in (300, 1, 2)], message("hurried", 3), message("hurried", 4))),
]
