"""The repository (not in explicit mode), trace and logging settings, over gRPC."""

from collections.abc import Mapping, Sequence
from typing import Any

from tests.golden.build import one, rpc, service_pb2
from tests.golden.scenario import Grpc, Scenario


def log(**settings: Any) -> Grpc:
    """Set log settings; the type of a value chooses its field, `(field, value)` names it, None leaves all unset."""
    request = service_pb2.LogSettingsRequest()
    for name, value in settings.items():
        target = request.settings[name]
        if isinstance(value, tuple):
            setattr(target, f"{value[0]}_param", value[1])
        elif value is not None:
            field = {bool: "bool_param", int: "uint32_param", str: "string_param"}[type(value)]
            setattr(target, field, value)
    return rpc("LogSettings", request)


def trace(settings: Mapping[str, Sequence[str]] | None = None, model: str = "") -> Grpc:
    """Set trace settings."""
    request = service_pb2.TraceSettingRequest(model_name=model)
    for name, values in (settings or {}).items():
        request.settings[name].value.extend(values)
        request.settings[name].SetInParent()
    return rpc("TraceSetting", request)


def repository_parameter(value: Any) -> Any:
    """A ModelRepositoryParameter."""
    field = {bool: "bool_param", int: "int64_param", str: "string_param", bytes: "bytes_param"}[type(value)]
    return service_pb2.ModelRepositoryParameter(**{field: value})


def load(model: str, repository: str = "", **parameters: Any) -> Grpc:
    """Load a model."""
    request = service_pb2.RepositoryModelLoadRequest(model_name=model, repository_name=repository)
    for name, value in parameters.items():
        request.parameters[name].CopyFrom(repository_parameter(value))
    return rpc("RepositoryModelLoad", request)


def unload(model: str, repository: str = "", **parameters: Any) -> Grpc:
    """Unload a model."""
    request = service_pb2.RepositoryModelUnloadRequest(model_name=model, repository_name=repository)
    for name, value in parameters.items():
        request.parameters[name].CopyFrom(repository_parameter(value))
    return rpc("RepositoryModelUnload", request)


def index(repository: str = "", is_ready: bool = False) -> Grpc:
    """The repository's index."""
    return rpc("RepositoryIndex", service_pb2.RepositoryIndexRequest(repository_name=repository, ready=is_ready))


CLEAR: dict[str, Sequence[str]] = {"trace_level": [], "trace_rate": [], "trace_count": [], "log_frequency": []}
TRACE: dict[str, dict[str, Sequence[str]]] = {
    "off": {"trace_level": ["OFF"]},
    "unknown_level": {"trace_level": ["FOO"]},
    "off_and_on": {"trace_level": ["OFF", "TIMESTAMPS"]},
    "on_without_file": {"trace_level": ["TIMESTAMPS"]},
    "rate_not_a_number": {"trace_rate": ["abc"]},
    "rate_too_large": {"trace_rate": ["4294967296"]},
    "two_rates": {"trace_rate": ["1", "2"]},
    "two_counts": {"trace_count": ["1", "2"]},
    "count_too_small": {"trace_count": ["-2"]},
    "two_frequencies": {"log_frequency": ["1", "2"]},
    "file": {"trace_file": ["/tmp/trace.json"]},
    "unknown": {"trace_colour": ["blue"]},
}
LOGGING: dict[str, dict[str, Any]] = {
    "nothing": {},
    "verbose_again": {"log_verbose_level": 0},
    "file": {"log_file": "/tmp/other.log"},
    "bad_format": {"log_format": "xml"},
    "format_number": {"log_format": 1},
    "info_string": {"log_info": "true"},
    "warning_number": {"log_warning": 1},
    "verbose_bool": {"log_verbose_level": True},
    "unset": {"log_info": None},
    "unknown": {"log_colour": "blue"},
}

SCENARIOS: list[Scenario] = [
    one("index", index()),
    one("index_ready", index(is_ready=True)),
    one("index_of_a_repository", index("golden")),
    one("load", load("add_sub")),
    one("load_unknown", load("nope")),
    one("load_unknown_parameter", load("add_sub", zz="x")),
    one("load_config_number", load("add_sub", config=1)),
    one("load_named_repository", load("add_sub", "golden")),
    one("unload", unload("add_sub")),
    one("unload_unknown", unload("nope")),
    one("unload_dependents_string", unload("add_sub", unload_dependents="yes")),
    one("unload_named_repository", unload("add_sub", "golden")),
    one("logging", log()),
    *[one(f"logging {name}", log(**settings)) for name, settings in LOGGING.items() if settings],
    one(
        "logging changed",
        log(log_warning=False, log_format="ISO8601"),
        log(),
        log(log_warning=True, log_format="default"),
    ),
    one("trace", trace()),
    one("trace of_model", trace(model="add_sub")),
    one("trace of_unknown_model", trace(model="nope")),
    one("trace set_unknown_model", trace({"trace_rate": ["5"]}, "nope")),
    *[one(f"trace {name}", trace(settings), trace(CLEAR)) for name, settings in TRACE.items()],
    one(
        "trace changed",
        trace({"trace_rate": ["7"], "trace_count": ["9"]}),
        trace({"trace_rate": ["11"]}, "add_sub"),
        trace({"trace_rate": ["13"]}),
        trace(model="add_sub"),
        trace({"trace_rate": []}, "add_sub"),
        trace(CLEAR),
        trace(),
    ),
]
