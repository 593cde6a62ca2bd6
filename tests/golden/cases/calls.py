"""Models that call models, ensembles with streams in them, and the response cache."""

from typing import Any

from tests.golden.build import (
    get,
    infer,
    infer_path,
    int32,
    one,
    post,
    proto_infer,
    proto_tensor,
    stream,
    tensor,
)
from tests.golden.scenario import Http, Scenario


def call(model: str, path: str, *numbers: int) -> Http:
    """A request to a model that calls others."""
    inputs = [tensor("NUMBERS", "INT32", [len(numbers)], list(numbers)), tensor("PATH", "BYTES", [1], [path])]
    return infer(model, {"inputs": inputs})


def gather(*numbers: int) -> Http:
    """A request to the model that makes several calls at once."""
    return infer("gatherer", {"inputs": [tensor("NUMBERS", "INT32", [len(numbers)], list(numbers))]})


def pipeline(*values: int, **parameters: Any) -> Any:
    """A message to the ensemble with a decoupled step."""
    tensors = [proto_tensor("VALUES", "INT32", [len(values)])]
    return proto_infer("repeat_pipeline", tensors, [int32(*values)], id="1", parameters=parameters)


def numbered(rows: int, *values: int, model: str = "numbered", **more: Any) -> Http:
    """A request whose answer may be cached."""
    return infer(model, {"inputs": [tensor("IN", "INT32", [rows, len(values) // rows], list(values))], **more})


SCENARIOS: list[Scenario] = [
    one("call", call("caller", "doubler", 1, 2, 3)),
    one("call of a call", call("outer", "caller doubler", 1, 2, 3)),
    one("call of an unknown model", call("caller", "nobody", 1)),
    one("call of a call of an unknown model", call("outer", "caller nobody", 1)),
    one("call that fails", call("caller", "doubler", 13)),
    one("call that is unavailable", call("caller", "doubler", 14)),
    one("call of a call that fails", call("outer", "caller doubler", 14)),
    one("call without its input", call("outer", "caller", 1)),
    one("call of a decoupled model", call("caller", "repeat", 1)),
    one("call of an ensemble", call("outer", "caller gatherer", 1, 2)),
    *[one(f"call of a stream of {n}", call("caller", "stream repeat", *range(1, n + 1))) for n in (0, 1, 3)],
    one("call of a stream of a call", call("caller", "stream doubler", 5)),
    one("calls together", gather(1, 2, 3)),
    one("calls together, one fails", gather(1, 13, 3)),
    *[one(f"ensemble of {n}", stream(pipeline(*range(1, n + 1)))) for n in (0, 1, 3)],
    *[
        one(f"ensemble of {n} empty_final", stream(pipeline(*range(n), triton_enable_empty_final_response=True)))
        for n in (0, 1, 3)
    ],
    one("ensemble that fails", stream(pipeline(13))),
    one("ensemble that fails later", stream(pipeline(1, 13, 2))),
    one("ensemble of a stream, generate", post(infer_path("repeat_pipeline", verb="generate"), {"VALUES": [4]})),
    one(
        "ensemble of a stream, generate_stream",
        post(infer_path("repeat_pipeline", verb="generate_stream"), {"VALUES": [4, 5]}),
    ),
    one("cached", *[numbered(1, 1, 2, 3, 4, model="counted_hits")] * 3, get("/v2/models/counted_hits/stats")),
    one("cached, equal bytes and different shape", numbered(1, 5, 6, 7, 8), numbered(2, 5, 6, 7, 8)),
    one("cached, another id", numbered(1, 9, id="a"), numbered(1, 9, id="b"), numbered(1, 9)),
    one(
        "cached, other outputs",
        numbered(1, 10),
        numbered(1, 10, outputs=[{"name": "ROWS"}]),
        numbered(1, 10, outputs=[{"name": "ROWS"}]),
    ),
    one("cached, other parameters", *[numbered(1, 11, parameters={"k": value}) for value in (1, 1, 2)]),
    one("cached, an error", numbered(1, 13), numbered(1, 13)),
]
