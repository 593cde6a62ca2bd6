"""Trace settings of a server that has a trace file."""

from tests.golden.build import get, one, post
from tests.golden.cases.grpc_control import trace
from tests.golden.scenario import Scenario

GLOBAL, MODEL, OTHER = "/v2/trace/setting", "/v2/models/add_sub/trace/setting", "/v2/models/identity_fp32/trace/setting"
CLEAR = {"trace_level": None, "trace_rate": None, "trace_count": None, "log_frequency": None}

SCENARIOS: list[Scenario] = [
    one("settings", get(GLOBAL), trace()),
    one(
        "on_and_off",
        post(GLOBAL, {"trace_level": ["TIMESTAMPS"]}),
        get(MODEL),
        post(GLOBAL, {"trace_level": ["OFF"]}),
        post(GLOBAL, CLEAR),
    ),
    one(
        "levels",
        post(GLOBAL, {"trace_level": ["TIMESTAMPS", "TENSORS"]}),
        post(GLOBAL, {"trace_level": ["TENSORS"]}),
        post(GLOBAL, CLEAR),
    ),
    one(
        "model_alone",
        post(MODEL, {"trace_level": ["TIMESTAMPS"], "trace_rate": "1"}),
        get(GLOBAL),
        get(OTHER),
        post(MODEL, CLEAR),
        get(MODEL),
    ),
    one("rate_zero", post(GLOBAL, {"trace_level": ["TIMESTAMPS"], "trace_rate": "0"}), post(GLOBAL, CLEAR)),
    one(
        "grpc",
        trace({"trace_level": ["TIMESTAMPS"], "trace_rate": ["2"]}, "add_sub"),
        trace(model="add_sub"),
        trace({"trace_level": [], "trace_rate": []}, "add_sub"),
    ),
]
