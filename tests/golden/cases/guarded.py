"""A server with restricted APIs and header forwarding."""

from tests.golden.build import (
    get,
    http,
    infer,
    infer_path,
    one,
    output,
    post,
    proto_infer,
    proto_tensor,
    rpc,
    service_pb2,
    stream,
    strings,
    tensor,
)
from tests.golden.scenario import Scenario

KEY = ("triton-grpc-protocol-admin", "secret")
SEEN = {"inputs": [tensor("SET", "BYTES", [1], [""])], "parameters": {"own": 1}, "outputs": [output("SEEN")]}
MESSAGE = proto_infer("parameters", [proto_tensor("SET", "BYTES", [1])], [strings(b"")], parameters={"own": 1})
STATISTICS = service_pb2.ModelStatisticsRequest(name="add_sub")
CONFIG = service_pb2.ModelConfigRequest(name="parameters")

SCENARIOS: list[Scenario] = [
    one("server", get("/v2"), rpc("ServerMetadata")),
    one("restricted", get("/v2/models/add_sub/stats")),
    one("restricted all_statistics", get("/v2/models/stats")),
    one("restricted config", get("/v2/models/add_sub/config")),
    one("restricted method", http("POST", "/v2/models/add_sub/config")),
    one("restricted unknown_model", get("/v2/models/nope/config")),
    one("restricted wrong_value", get("/v2/models/add_sub/config", "admin: other")),
    one("restricted allowed", get("/v2/models/parameters/config", "admin: secret")),
    one("restricted allowed_upper_case", get("/v2/models/parameters/config", "ADMIN: secret")),
    one("restricted upper_case_value", get("/v2/models/parameters/config", "admin: SECRET")),
    one("restricted other_group", get("/v2/trace/setting", "admin: secret")),
    one("restricted other_group_allowed", get("/v2/trace/setting", "tracer: yes")),
    one("restricted post", post("/v2/trace/setting", {})),
    one("not_restricted", get("/v2/models/parameters")),
    one("restricted grpc", rpc("ModelStatistics", STATISTICS), rpc("ModelConfig", CONFIG)),
    one("restricted grpc wrong", rpc("ModelConfig", CONFIG, ("triton-grpc-protocol-admin", "other"))),
    one("restricted grpc bare_name", rpc("ModelConfig", CONFIG, ("admin", "secret"))),
    one("restricted grpc allowed", rpc("ModelConfig", CONFIG, KEY)),
    one("restricted grpc memory", rpc("SystemSharedMemoryStatus"), rpc("CudaSharedMemoryUnregister")),
    one("restricted grpc memory allowed", rpc("SystemSharedMemoryStatus", b"", ("triton-grpc-protocol-memory", "yes"))),
    one("forward", infer("parameters", SEEN, "X-Golden-One: 1", "x-golden-two: two", "Other: 3")),
    one("forward nothing", infer("parameters", SEEN, "Other: 3")),
    one("forward partial_match", infer("parameters", SEEN, "my-x-golden-name: 1")),
    one("forward empty_value", infer("parameters", SEEN, "x-golden-empty:")),
    one(
        "forward same_as_parameter", infer("parameters", SEEN | {"parameters": {"x-golden-one": 5}}, "x-golden-one: 1")
    ),
    one("forward generate", post(infer_path("parameters", verb="generate"), {"SET": ""}, "x-golden-one: 1")),
    one("forward grpc", rpc("ModelInfer", MESSAGE, ("x-golden-one", "1"), ("other", "2"))),
    one("forward stream", stream(MESSAGE, metadata=[("x-golden-one", "1")])),
]
