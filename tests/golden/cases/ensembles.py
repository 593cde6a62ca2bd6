"""Ensembles: what comes out, and errors of their steps."""

from tests.golden.build import fp32, get, infer, infer_path, one, post, proto_infer, proto_tensor, rpc, strings, tensor
from tests.golden.scenario import Http, Scenario

FOUR = [1, 2, 3, 4]
INPUTS = [tensor("X", "FP32", [1, 4], FOUR), tensor("Y", "FP32", [1, 4], FOUR)]


def failing(what: str) -> Http:
    """A request whose only step does what it is told."""
    return infer("failing_pipeline", {"inputs": [tensor("COMMAND", "BYTES", [1], [what])]})


SCENARIOS: list[Scenario] = [
    one("config", get("/v2/models/pipeline/config")),
    one("metadata", get("/v2/models/pipeline")),
    one("http", infer("pipeline", {"id": "7", "inputs": INPUTS})),
    one(
        "grpc",
        rpc("ModelInfer", proto_infer("pipeline", [proto_tensor(n, "FP32", [1, 4]) for n in "XY"], [fp32(*FOUR)] * 2)),
    ),
    one("missing_input", infer("pipeline", {"inputs": INPUTS[:1]})),
    one("wrong_datatype", infer("pipeline", {"inputs": [INPUTS[0], tensor("Y", "INT32", [1, 4], FOUR)]})),
    one("step_fine", failing("fine")),
    one("step_raises", failing("raise")),
    one("step_error http", failing("UNAVAILABLE try later")),
    one(
        "step_error grpc",
        rpc(
            "ModelInfer",
            proto_infer("failing_pipeline", [proto_tensor("COMMAND", "BYTES", [1])], [strings(b"NOT_FOUND gone")]),
        ),
    ),
    one("step_no_output", failing("no output")),
    one("generate", post(infer_path("pipeline", verb="generate"), {"X": FOUR, "Y": FOUR})),
    one("statistics_of_step", get("/v2/models/pipeline/versions/7/stats")),
]
