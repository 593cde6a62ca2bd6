"""Explicit loading and unloading, and models that are not ready."""

import base64
import json
from typing import Any

from tests.golden.build import Json, get, infer, one, post, rpc, service_pb2, tensor
from tests.golden.cases.grpc_control import index, load, unload
from tests.golden.configurations import MODELS
from tests.golden.scenario import Http, Scenario, Settle

SETTLED = Settle()
INDEX = post("/v2/repository/index")
READY = get("/v2/health/ready")
LIVE = get("/v2/health/live")
SOURCE = (MODELS / "identity_fp32" / "1" / "model.py").read_bytes()
CONFIG = {
    "backend": "python",
    "max_batch_size": 2,
    "input": [{"name": "IN", "data_type": "TYPE_FP32", "dims": [3]}],
    "output": [{"name": "OUT_IN", "data_type": "TYPE_FP32", "dims": [3]}],
}


def http_load(model: str, body: Json = "") -> Http:
    """Load a model over HTTP."""
    return post(f"/v2/repository/models/{model}/load", body)


def http_unload(model: str, body: Json = "") -> Http:
    """Unload a model over HTTP."""
    return post(f"/v2/repository/models/{model}/unload", body)


def with_config(config: object, **more: str) -> dict[str, object]:
    """A load with a configuration instead of config.pbtxt."""
    return {"parameters": {"config": config if isinstance(config, str) else json.dumps(config), **more}}


def one_value(model: str) -> Http:
    """An inference request to identity_fp32."""
    return infer(model, {"inputs": [tensor("IN", "FP32", [1], [1])]})


FILE = {"file:1/model.py": base64.b64encode(SOURCE).decode()}
FIRST = one("index", INDEX, post("/v2/repository/index", {"ready": True}), index(), index(is_ready=True))
FILE_AND_CONFIG: dict[str, Any] = {"config": json.dumps(CONFIG), "file:1/model.py": SOURCE}
TEXT_FOR_FILE: dict[str, Any] = {"file:1/model.py": "text"}
BAD_LOADS: dict[str, tuple[str, Json]] = {
    "unknown_model": ("nope", ""),
    "not_json": ("identity_fp32", "hello"),
    "array": ("identity_fp32", []),
    "parameters_array": ("identity_fp32", {"parameters": []}),
    "unknown_parameter": ("identity_fp32", {"parameters": {"zz": "x"}}),
    "config_object": ("identity_fp32", {"parameters": {"config": {}}}),
    "config_not_json": ("identity_fp32", with_config("hello")),
    "config_unknown_field": ("identity_fp32", with_config({"colour": "blue"})),
    "config_unknown_backend": ("identity_fp32", with_config(CONFIG | {"backend": "nothing"})),
    "config_no_version": ("identity_fp32", with_config(CONFIG | {"version_policy": {"specific": {"versions": [5]}}})),
    "file_without_config": ("identity_fp32", {"parameters": FILE}),
    "file_not_base64": ("identity_fp32", with_config(CONFIG, **{"file:1/model.py": "!"})),
    "path_traversal": ("identity_fp32", with_config(CONFIG, **{"file:../../x": "AAAA"})),
}

SCENARIOS: list[Scenario] = [
    FIRST,
    one(
        "not_loaded",
        one_value("identity_fp32"),
        get("/v2/models/identity_fp32"),
        get("/v2/models/identity_fp32/ready"),
        get("/v2/models/identity_fp32/stats"),
    ),
    one(
        "load_and_unload",
        http_load("identity_fp32"),
        one_value("identity_fp32"),
        INDEX,
        READY,
        http_unload("identity_fp32"),
        SETTLED,
        one_value("identity_fp32"),
        get("/v2/models/identity_fp32/ready"),
        INDEX,
        READY,
    ),
    one(
        "load_and_unload grpc",
        load("identity_fp32"),
        index(is_ready=True),
        unload("identity_fp32"),
        SETTLED,
        index(),
        rpc("ModelMetadata", service_pb2.ModelMetadataRequest(name="identity_fp32")),
        rpc("ModelMetadata", service_pb2.ModelMetadataRequest(name="identity_fp32", version="1")),
        rpc("ModelReady", service_pb2.ModelReadyRequest(name="identity_fp32")),
    ),
    one(
        "load_broken",
        http_load("broken"),
        INDEX,
        READY,
        LIVE,
        get("/v2/models/broken"),
        get("/v2/models/broken/versions/1"),
        get("/v2/models/broken/ready"),
        one_value("broken"),
        http_unload("broken"),
        SETTLED,
        INDEX,
        READY,
    ),
    one("load_broken grpc", load("broken"), rpc("ServerReady"), unload("broken"), SETTLED, rpc("ServerReady")),
    one(
        "load_twice",
        http_load("identity_fp32"),
        http_load("identity_fp32"),
        one_value("identity_fp32"),
        http_unload("identity_fp32"),
        SETTLED,
    ),
    one(
        "load_with_config",
        http_load("identity_fp32", with_config(CONFIG)),
        get("/v2/models/identity_fp32"),
        infer("identity_fp32", {"inputs": [tensor("IN", "FP32", [1, 3], [1, 2, 3])]}),
        http_load("identity_fp32"),
        get("/v2/models/identity_fp32"),
        http_unload("identity_fp32"),
        SETTLED,
    ),
    one(
        "load_with_config grpc",
        load("identity_fp32", config=json.dumps(CONFIG)),
        rpc("ModelMetadata", service_pb2.ModelMetadataRequest(name="identity_fp32")),
        unload("identity_fp32"),
        SETTLED,
    ),
    one(
        "load_with_file",
        http_load("made_up", with_config(CONFIG, **FILE)),
        get("/v2/models/made_up"),
        INDEX,
        infer("made_up", {"inputs": [tensor("IN", "FP32", [1, 3], [1, 2, 3])]}),
        http_unload("made_up"),
        SETTLED,
    ),
    one(
        "load_with_file grpc",
        load("made_up_too", **FILE_AND_CONFIG),
        rpc("ModelReady", service_pb2.ModelReadyRequest(name="made_up_too")),
        unload("made_up_too"),
        SETTLED,
    ),
    one(
        "failed_reload_keeps_serving",
        http_load("identity_fp32"),
        http_load("identity_fp32", with_config(CONFIG | {"backend": "nothing"})),
        one_value("identity_fp32"),
        http_unload("identity_fp32"),
        SETTLED,
    ),
    *[one(f"bad_load {name}", http_load(model, body)) for name, (model, body) in BAD_LOADS.items()],
    one(
        "bad_load wrong types grpc",
        load("identity_fp32", config=5),
        load("identity_fp32", zz="x"),
        load("identity_fp32", **TEXT_FOR_FILE),
    ),
    one("bad_load unknown grpc", load("nope")),
    one("bad_load repository grpc", load("identity_fp32", "golden"), unload("identity_fp32", "golden")),
    one(
        "load_from_repository",
        post("/v2/repository/golden/models/identity_fp32/load"),
        post("/v2/repository/golden/models/identity_fp32/unload"),
    ),
    one("unload_unknown", http_unload("nope"), unload("nope")),
    one(
        "unload_with_parameters",
        http_unload("nope", {"parameters": {"unload_dependents": True}}),
        http_unload("nope", {"parameters": {"unload_dependents": "yes"}}),
        http_unload("nope", {"parameters": {"zz": 1}}),
        unload("nope", unload_dependents=True),
        unload("nope", unload_dependents="yes"),
        unload("nope", zz=1),
    ),
]
