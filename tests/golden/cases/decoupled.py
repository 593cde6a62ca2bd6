"""A decoupled model: streams, generate, and what unary calls say."""

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
    rpc,
    stream,
    strings,
    tensor,
)
from tests.golden.cases.grpc_stream import STRICT, good
from tests.golden.scenario import Scenario

ENDS = ("apart", "with data", "error", "raise")
BODIES: dict[str, dict[str, Any]] = {
    "one": {"IN": 1},
    "one_with_data": {"IN": 1, "HOW": "with data"},
    "several": {"IN": [1, 2, 3], "id": "i"},
    "none": {"IN": []},
    "error": {"IN": [1, 2], "HOW": "error"},
    "error_first": {"IN": [], "HOW": "error"},
    "raise": {"IN": [1], "HOW": "raise"},
    "invalid": {},
}
EMPTY_FINAL = {"triton_enable_empty_final_response": True}


def repeat(*values: int, how: str = "", parameters: Any = None, **fields: str) -> Any:
    """A message to repeat."""
    inputs = [proto_tensor("IN", "INT32", [len(values)])]
    raw = [int32(*values)]
    if how:
        inputs.append(proto_tensor("HOW", "BYTES", [1]))
        raw.append(strings(how.encode()))
    return proto_infer("repeat", inputs, raw, parameters=parameters, **fields)


SCENARIOS: list[Scenario] = [
    one("metadata", get("/v2/models/repeat")),
    one("config", get("/v2/models/repeat/config")),
    one("http_infer", infer("repeat", {"inputs": [tensor("IN", "INT32", [1], [1])]})),
    one("http_infer_not_json", infer("repeat", "{")),
    one("http_infer_bad_encoding", post(infer_path("repeat"), "{", "Content-Encoding: br")),
    one("grpc_infer", rpc("ModelInfer", repeat(1))),
    one("grpc_infer_invalid", rpc("ModelInfer", proto_infer("repeat"))),
    *[one(f"stream {how}", stream(repeat(1, 2, 3, how=how, id="1"))) for how in ENDS],
    *[one(f"stream {how} empty_final", stream(repeat(1, 2, how=how, id="1", parameters=EMPTY_FINAL))) for how in ENDS],
    *[
        one(f"stream {how} strict", stream(repeat(1, 2, how=how, id="1"), metadata=STRICT))
        for how in ENDS
        if how != "error"  # the real server dies of it
    ],
    one("stream one", stream(repeat(7))),
    one("stream nothing", stream(repeat(id="1"))),
    one("stream nothing empty_final", stream(repeat(id="1", parameters=EMPTY_FINAL))),
    one("stream nothing with version", stream(repeat(id="1", model_version="1", parameters=EMPTY_FINAL))),
    one("stream many", stream(repeat(*range(50), id="1"))),
    one("stream invalid", stream(proto_infer("repeat", id="1"), repeat(1, id="2"))),
    one("stream and_another_model", stream(repeat(1, id="1"), good(id="2"))._replace(is_grouped=True)),
    one(
        "stream two_at_once",
        stream(repeat(1, 2, 3, id="1"), repeat(4, 5, 6, id="2"), repeat(7, id="3"))._replace(is_grouped=True),
    ),
    *[
        one(f"{verb} {name}", post(infer_path("repeat", verb=verb), body))
        for verb in ("generate", "generate_stream")
        for name, body in BODIES.items()
    ],
]
