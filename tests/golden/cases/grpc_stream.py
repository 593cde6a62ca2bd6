"""ModelStreamInfer with models that answer once."""

from tests.golden.build import fp32, one, proto_infer, proto_output, proto_tensor, stream
from tests.golden.cases.grpc_failures import told
from tests.golden.scenario import Scenario

A = fp32(1, 2, 3, 4)
STRICT = [("triton_grpc_error", "true")]


def good(**fields: object) -> object:
    """A good message to add_sub."""
    return proto_infer("add_sub", [proto_tensor(n, "FP32", [1, 4]) for n in "AB"], [A, A], **fields)  # type: ignore[arg-type]  # as given


BAD = proto_infer("add_sub", [proto_tensor("A", "FP32", [1, 4])], [A], id="bad")
EMPTY_FINAL = {"triton_enable_empty_final_response": True}

SCENARIOS: list[Scenario] = [
    one("nothing", stream()),
    one("one", stream(good(id="1"))),
    one("three", stream(good(id="1"), good(id="2"), good(id="3"))),
    one("without_id", stream(good())),
    one("different_models", stream(good(id="1"), told("fine", id="2"), good(id="3", outputs=[proto_output("SUM")]))),
    one("version", stream(good(id="1", model_version="1"))),
    one("classes", stream(good(id="1", outputs=[proto_output("SUM", classification=1)]))),
    one("invalid", stream(BAD)),
    one("invalid_then_good", stream(BAD, good(id="2"))),
    one("unknown_model", stream(proto_infer("nope", id="1"), good(id="2"))),
    one("unknown_version", stream(good(id="1", model_version="9"))),
    one("bad_version", stream(good(id="1", model_version="x"))),
    one("no_data", stream(proto_infer("add_sub", [proto_tensor("A", "FP32", [1, 4])], id="1"))),
    one("model_error", stream(told("INTERNAL broke", id="1"))),
    one("model_error_with_version", stream(told("UNAVAILABLE broke", id="1", model_version="1"))),
    one("model_error_then_good", stream(told("INTERNAL broke", id="1"), good(id="2"))),
    one("model_raises", stream(told("raise", id="1"))),
    one("empty_final_asked", stream(good(id="1", parameters=EMPTY_FINAL))),
    one("empty_final_number", stream(good(id="1", parameters={"triton_enable_empty_final_response": 1}))),
    one("reserved_parameter", stream(good(id="1", parameters={"triton_x": 1}))),
    one("strict", stream(good(id="1"), metadata=STRICT)),
    one("strict_invalid", stream(BAD, good(id="2"), metadata=STRICT)),
    one("strict_model_error", stream(told("UNAVAILABLE broke", id="1"), metadata=STRICT)),
    one("strict_false", stream(told("UNAVAILABLE broke", id="1"), metadata=[("triton_grpc_error", "false")])),
]
