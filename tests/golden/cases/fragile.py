"""A model whose process dies."""

from tests.golden.build import get, infer, int32, one, proto_infer, proto_tensor, rpc, tensor
from tests.golden.scenario import Grpc, Http, Pause, Scenario

DEADLY = 9


def http(value: int) -> Http:
    """A request to dies."""
    return infer("dies", {"inputs": [tensor("IN", "INT32", [1], [value])]})


def grpc(value: int) -> Grpc:
    """The same over gRPC."""
    return rpc("ModelInfer", proto_infer("dies", [proto_tensor("IN", "INT32", [1])], [int32(value)]))


SCENARIOS: list[Scenario] = [
    one("dies", http(1), http(DEADLY), Pause(2), http(1), grpc(1), get("/v2/models/dies/ready")),
    one("dies grpc", grpc(DEADLY), Pause(2)),
]
