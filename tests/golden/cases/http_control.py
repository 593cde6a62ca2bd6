"""The repository (not in explicit mode), trace and logging settings, over HTTP."""

from tests.golden.build import Json, get, one, post
from tests.golden.scenario import Scenario

INDEX: dict[str, Json] = {
    "all": "",
    "object": {},
    "ready": {"ready": True},
    "not_ready": {"ready": False},
    "ready_number": {"ready": 1},
    "ready_string": {"ready": "yes"},
    "not_json": "hello",
    "array": [],
}
LOADS: dict[str, tuple[str, Json]] = {
    "load": ("models/add_sub/load", ""),
    "load_unknown": ("models/nope/load", ""),
    "load_not_json": ("models/add_sub/load", "hello"),
    "load_parameters": ("models/add_sub/load", {"parameters": {"config": "{}"}}),
    "load_unknown_parameter": ("models/add_sub/load", {"parameters": {"zz": "x"}}),
    "unload": ("models/add_sub/unload", ""),
    "unload_unknown": ("models/nope/unload", ""),
    "unload_not_json": ("models/add_sub/unload", "hello"),
    "load_named_repository": ("golden/models/add_sub/load", ""),
    "unload_named_repository": ("golden/models/add_sub/unload", ""),
}
LOGGING: dict[str, Json] = {
    "nothing": {},
    "verbose_again": {"log_verbose_level": 0},
    "null": {"log_info": None},
    "file": {"log_file": "/tmp/other.log"},
    "bad_format": {"log_format": "xml"},
    "format_number": {"log_format": 1},
    "info_string": {"log_info": "true"},
    "info_number": {"log_info": 1},
    "verbose_string": {"log_verbose_level": "1"},
    "verbose_negative": {"log_verbose_level": -1},
    "verbose_float": {"log_verbose_level": 1.5},
    "unknown": {"log_colour": "blue"},
    "not_json": "hello",
    "empty": "",
    "array": [],
}
TRACE: dict[str, Json] = {
    "nothing": {},
    "off": {"trace_level": ["OFF"]},
    "unknown_level": {"trace_level": ["FOO"]},
    "off_and_on": {"trace_level": ["OFF", "TIMESTAMPS"]},
    "on_without_file": {"trace_level": ["TIMESTAMPS"]},
    "level_string": {"trace_level": "OFF"},
    "level_numbers": {"trace_level": [1]},
    "level_null": {"trace_level": None},
    "rate_not_a_number": {"trace_rate": "abc"},
    "rate_number": {"trace_rate": 5},
    "rate_negative": {"trace_rate": "-1"},
    "rate_too_large": {"trace_rate": "4294967296"},
    "rate_huge": {"trace_rate": "99999999999999999999"},
    "rate_null": {"trace_rate": None},
    "count_too_small": {"trace_count": "-2"},
    "count_not_a_number": {"trace_count": "x"},
    "count_too_large": {"trace_count": "4294967296"},
    "frequency_not_a_number": {"log_frequency": "x"},
    "frequency_negative": {"log_frequency": "-1"},
    "file": {"trace_file": "/tmp/trace.json"},
    "mode": {"trace_mode": "opentelemetry"},
    "unknown": {"trace_colour": "blue"},
    "not_json": "hello",
    "empty": "",
}
MODEL_TRACE = "/v2/models/add_sub/trace/setting"
CLEAR = {"trace_level": None, "trace_rate": None, "trace_count": None, "log_frequency": None}

SCENARIOS: list[Scenario] = [
    *[one(f"index {name}", post("/v2/repository/index", body)) for name, body in INDEX.items()],
    one("index of_a_repository", post("/v2/repository/golden/index")),
    *[one(f"repository {name}", post(f"/v2/repository/{path}", body)) for name, (path, body) in LOADS.items()],
    one("logging", get("/v2/logging")),
    *[one(f"logging {name}", post("/v2/logging", body)) for name, body in LOGGING.items()],
    one(
        "logging changed",
        post("/v2/logging", {"log_warning": False, "log_format": "ISO8601"}),
        get("/v2/logging"),
        post("/v2/logging", {"log_warning": True, "log_format": "default"}),
    ),
    one(
        "logging partly_wrong",
        post("/v2/logging", {"log_warning": False, "log_format": "xml"}),
        get("/v2/logging"),
        post("/v2/logging", {"log_warning": True}),
    ),
    one("trace", get("/v2/trace/setting")),
    *[
        one(f"trace {name}", post("/v2/trace/setting", body), post("/v2/trace/setting", CLEAR))
        for name, body in TRACE.items()
    ],
    one("trace of_model", get(MODEL_TRACE)),
    one("trace of_unknown_model", get("/v2/models/nope/trace/setting")),
    one("trace set_unknown_model", post("/v2/models/nope/trace/setting", {"trace_rate": "5"})),
    one(
        "trace changed",
        post("/v2/trace/setting", {"trace_rate": "7", "trace_count": "9", "log_frequency": "3"}),
        get(MODEL_TRACE),
        post(MODEL_TRACE, {"trace_rate": "11"}),
        post("/v2/trace/setting", {"trace_rate": "13"}),
        get(MODEL_TRACE),
        get("/v2/models/matrix/trace/setting"),
        post(MODEL_TRACE, {"trace_rate": None}),
        post("/v2/trace/setting", CLEAR),
        get(MODEL_TRACE),
    ),
]
