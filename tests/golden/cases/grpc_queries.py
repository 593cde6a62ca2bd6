"""Health, metadata, configuration and statistics over gRPC, and calls of methods that are not there."""

from tests.golden.build import INFERENCE, fp32, int32, one, proto_infer, proto_tensor, rpc, service_pb2
from tests.golden.configurations import CONFIGURATIONS
from tests.golden.exchange import HEALTH
from tests.golden.scenario import Grpc, Pause, Scenario

LOOKUPS = {
    "unknown_model": ("nope", ""),
    "unknown_version": ("add_sub", "7"),
    "version_zero": ("add_sub", "0"),
    "negative_version": ("add_sub", "-1"),
    "digits_and_more": ("add_sub", "1abc"),
    "leading_space": ("add_sub", " 1"),
    "plus": ("add_sub", "+1"),
    "not_a_number": ("add_sub", "latest"),
    "version_too_large": ("add_sub", "99999999999999999999"),
    "version_that_is_not_served": ("versions", "2"),
    "older_version": ("versions", "1"),
    "no_name": ("", ""),
    "unknown_model_and_bad_version": ("nope", "x"),
}
FOUND = {"no_name", "digits_and_more", "leading_space", "plus", "older_version"}
"""Lookups whose statistics are found: they depend on the other cases."""
ASKS = {
    "metadata": (service_pb2.ModelMetadataRequest, "ModelMetadata"),
    "config": (service_pb2.ModelConfigRequest, "ModelConfig"),
    "ready": (service_pb2.ModelReadyRequest, "ModelReady"),
    "statistics": (service_pb2.ModelStatisticsRequest, "ModelStatistics"),
}


def counted(*values: int) -> Grpc:
    """A request to the model whose statistics are looked at."""
    return rpc(
        "ModelInfer", proto_infer("auto", [proto_tensor("IN", "FP32", [len(values), 2])], [fp32(*values, *values)])
    )


SCENARIOS: list[Scenario] = [
    one("live", rpc("ServerLive")),
    one("ready", rpc("ServerReady")),
    one("server", rpc("ServerMetadata")),
    one("health_check", rpc(f"{HEALTH}/Check")),
    one("health_check_service", rpc(f"{HEALTH}/Check", b"\n\x04some")),
    *[
        one(f"metadata of {m}", rpc("ModelMetadata", service_pb2.ModelMetadataRequest(name=m)))
        for m in CONFIGURATIONS["core"].models
    ],
    *[
        one(f"config of {m}", rpc("ModelConfig", service_pb2.ModelConfigRequest(name=m)))
        for m in CONFIGURATIONS["core"].models
    ],
    *[
        one(f"{kind} {name}", rpc(method, message(name=model, version=version)))
        for kind, (message, method) in ASKS.items()
        for name, (model, version) in LOOKUPS.items()
        if kind != "statistics" or name not in FOUND
    ],
    *[
        one(
            f"infer {name}",
            rpc(
                "ModelInfer", proto_infer(model, [proto_tensor("IN", "INT32", [1])], [int32(5)], model_version=version)
            ),
        )
        for name, (model, version) in LOOKUPS.items()
    ],
    one(
        "statistics after",
        counted(1),
        counted(1, 2, 3),
        counted(*range(9)),
        Pause(0.5),
        rpc("ModelStatistics", service_pb2.ModelStatisticsRequest(name="auto")),
    ),
    one("unknown_method", rpc("ModelDream")),
    one("unknown_service", rpc("inference.Other/ModelInfer")),
    one("watch", rpc(f"{HEALTH}/Watch")),
    one("reflection", rpc("grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")),
    one("not_protobuf", rpc("ModelMetadata", b"\xff\xff\xff")),
    one("infer_not_protobuf", rpc("ModelInfer", b"\xff\xff\xff")),
    one("infer_cut", rpc("ModelInfer", b"\x0a\x20add")),
    one("infer_empty", rpc(f"{INFERENCE}/ModelInfer")),
    one("unknown_fields", rpc("ModelReady", b"\x0a\x07add_sub\xa2\x06\x03abc")),
]
