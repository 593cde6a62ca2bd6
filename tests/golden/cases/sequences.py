"""Sequences."""

from typing import Any

from tests.golden.build import get, infer, int32, one, proto_infer, proto_tensor, rpc, stream, tensor
from tests.golden.scenario import Grpc, Http, Scenario


def http(model: str, value: int, batch: int = 1, **parameters: Any) -> Http:
    """The next value of a sequence."""
    inputs = [tensor("VALUE", "INT32", [batch, 1], [value] * batch)]
    return infer(model, {"inputs": inputs, "parameters": parameters})


def message(model: str, value: int, identity: int | str, is_start: bool = False, is_end: bool = False) -> Any:
    """The same as a message."""
    parameters = {"sequence_id": identity, "sequence_start": is_start, "sequence_end": is_end}
    return proto_infer(model, [proto_tensor("VALUE", "INT32", [1, 1])], [int32(value)], parameters=parameters)


def grpc(model: str, value: int, identity: int | str, is_start: bool = False, is_end: bool = False) -> Grpc:
    """The same over gRPC."""
    return rpc("ModelInfer", message(model, value, identity, is_start, is_end))


START, END = {"sequence_start": True}, {"sequence_end": True}

SCENARIOS: list[Scenario] = [
    one("config", get("/v2/models/sums/config")),
    one("metadata", get("/v2/models/sums")),
    one(
        "sequence http",
        http("sums", 1, sequence_id=11, **START),
        http("sums", 2, sequence_id=11),
        http("sums", 3, sequence_id=11, **END),
    ),
    one("sequence grpc", grpc("sums", 1, 12, True), grpc("sums", 2, 12), grpc("sums", 3, 12, False, True)),
    one(
        "sequence stream",
        stream(message("sums", 1, 13, True), message("sums", 2, 13), message("sums", 3, 13, False, True)),
    ),
    one(
        "two sequences",
        http("sums", 1, sequence_id=14, **START),
        http("sums", 10, sequence_id=15, **START),
        http("sums", 2, sequence_id=14, **END),
        http("sums", 20, sequence_id=15, **END),
    ),
    one("one request", http("sums", 5, sequence_id=16, **START, **END)),
    one("named http", http("named_sums", 1, sequence_id="a", **START), http("named_sums", 2, sequence_id="a", **END)),
    one("named grpc", grpc("named_sums", 1, "b", True), grpc("named_sums", 2, "b", False, True)),
    one("no_id http", http("sums", 1, **START)),
    one("no_id grpc", grpc("sums", 1, 0, True)),
    one("empty_id", grpc("named_sums", 1, "", True)),
    one("no_start http", http("sums", 1, sequence_id=21)),
    one("no_start grpc", grpc("sums", 1, 22)),
    one("no_start named", http("named_sums", 1, sequence_id="nobody")),
    one("after_end", http("sums", 1, sequence_id=23, **START, **END), http("sums", 1, sequence_id=23)),
    one(
        "start_again",
        http("sums", 1, sequence_id=24, **START),
        http("sums", 5, sequence_id=24, **START),
        http("sums", 1, sequence_id=24, **END),
    ),
    one("batch http", http("sums", 1, batch=2, sequence_id=25, **START)),
    one(
        "batch grpc",
        rpc(
            "ModelInfer",
            proto_infer(
                "sums",
                [proto_tensor("VALUE", "INT32", [2, 1])],
                [int32(1, 1)],
                parameters={"sequence_id": 26, "sequence_start": True},
            ),
        ),
    ),
    one("id_too_long http", http("named_sums", 1, sequence_id="x" * 129, **START)),
    one("id_too_long grpc", grpc("named_sums", 1, "x" * 129, True)),
    one("string_for_number", grpc("sums", 1, "word", True, True)),
    one("config oldest", get("/v2/models/oldest_sums/config")),
    one("config iterative", get("/v2/models/steps/config")),
    one("metadata controls", get("/v2/models/controls")),
    one(
        "rows",
        http("controls", 1, sequence_id=31, **START),
        http("controls", 1, sequence_id=2**32 + 32, **START),
        grpc("controls", 1, 2**63 - 1, True),
        http("controls", 1, sequence_id=31),
        http("controls", 1, sequence_id=31, **START),
        grpc("controls", 1, 2**63 - 1, False, True),
        http("controls", 1, sequence_id=31, **START, **END),
        http("controls", 1, sequence_id=2**32 + 32, **END),
        http("controls", 1, sequence_id=33, **START, **END),
    ),
    one(
        "oldest",
        http("oldest_sums", 1, sequence_id=41, **START),
        http("oldest_sums", 2, sequence_id=41),
        http("oldest_sums", 3, sequence_id=42, timeout=50000, **START),
        http("oldest_sums", 3, sequence_id=42),
        http("oldest_sums", 3, sequence_id=41, **START),
        http("oldest_sums", 4, sequence_id=41, **END),
        http("oldest_sums", 5, sequence_id=43, **START, **END),
        http("oldest_sums", 1, sequence_id=41),
    ),
    one("iterative", http("steps", 3), http("steps", 1), grpc("steps", 4, 0)),
    one("iterative id", http("steps", 3, sequence_id=51, **START), http("steps", 3, sequence_id=51)),
    one("iterative named", grpc("steps", 2, "fifty", True)),
    one("iterative no_start", http("steps", 1, sequence_id=52)),
    one("iterative batch", http("steps", 1, batch=2)),
    one("iterative error", http("steps", 0), http("steps", 2)),
    one(
        "control_as_input",
        infer(
            "sums",
            {
                "inputs": [tensor("VALUE", "INT32", [1, 1], [1]), tensor("START", "INT32", [1, 1], [1])],
                "parameters": {"sequence_id": 27, **START, **END},
            },
        ),
    ),
]
