"""Queue policies: full queues, timeouts, priorities."""

from typing import Any

from tests.golden.build import get, infer, int32, one, proto_infer, proto_tensor, rpc, stream, tensor
from tests.golden.scenario import Grpc, Http, Pause, Scenario, Step

SETTLED = Pause(0.15)


def http(model: str, milliseconds: int, is_background: bool = False, **parameters: Any) -> Http:
    """A request that takes so long."""
    inputs = [tensor("MILLISECONDS", "INT32", [1, 1], [milliseconds])]
    document: dict[str, Any] = {"id": f"{milliseconds} ms", "inputs": inputs}
    step = infer(model, document | ({"parameters": parameters} if parameters else {}))
    return step._replace(is_background=is_background)


def grpc(model: str, milliseconds: int, is_background: bool = False, **parameters: Any) -> Grpc:
    """The same over gRPC."""
    step = rpc("ModelInfer", message(model, milliseconds, **parameters))
    return step._replace(is_background=is_background)


def message(model: str, milliseconds: int, **parameters: Any) -> Any:
    """Its message."""
    inputs = [proto_tensor("MILLISECONDS", "INT32", [1, 1])]
    return proto_infer(model, inputs, [int32(milliseconds)], parameters=parameters, id=f"{milliseconds} ms")


def behind(first: Step, *steps: Step) -> tuple[Step, ...]:
    """`first` is executing when the others are sent."""
    return (first, SETTLED, *steps)


def full(model: str) -> tuple[Step, ...]:
    """A model that executes one request and has another one waiting."""
    return (http(model, 1500, is_background=True), SETTLED, http(model, 2, is_background=True), SETTLED)


def turns(*requests: tuple[int, int]) -> tuple[Step, ...]:
    """Requests by milliseconds and priority, one after the other, that wait for the same model."""
    return tuple(
        step
        for milliseconds, priority in requests
        for step in (http("turns", milliseconds, is_background=True, priority=priority), Pause(0.02))
    )


SCENARIOS: list[Scenario] = [
    *[
        one(f"config of {model}", get(f"/v2/models/{model}/config"))
        for model in ("short_queue", "impatient", "delaying", "ranked")
    ],
    one("full http", *full("short_queue"), http("short_queue", 3)),
    one("full grpc", *full("short_queue"), grpc("short_queue", 3)),
    one("full stream", *full("short_queue"), stream(message("short_queue", 3))),
    one("timeout http", *behind(http("impatient", 900, is_background=True), http("impatient", 1))),
    one("timeout grpc", *behind(grpc("impatient", 900, is_background=True), grpc("impatient", 1))),
    one("timeout stream", *behind(grpc("impatient", 900, is_background=True), stream(message("impatient", 1)))),
    one("timeout shorter", *behind(http("impatient", 500, is_background=True), http("impatient", 1, timeout=1000))),
    one("timeout longer", *behind(http("impatient", 500, is_background=True), http("impatient", 1, timeout=5000000))),
    one("timeout within", http("impatient", 1)),
    one("delayed", *behind(http("delaying", 300, is_background=True), http("delaying", 1))),
    one(
        "priority",
        *behind(http("ranked", 300, is_background=True), http("ranked", 1, priority=1), grpc("ranked", 2, priority=2)),
    ),
    one(
        "priority order",
        *behind(http("turns", 400, is_background=True), *turns((1, 2), (2, 0), (3, 1), (4, 2), (5, 1))),
    ),
    one("priority_beyond", http("ranked", 1, priority=9)),
    one("priority_zero", grpc("ranked", 1, priority=0)),
]
