"""The route table: paths are matched as they were sent."""

import pytest

from frontends.http import generate, queries, regions, repository, settings
from frontends.http.call import Handler
from frontends.http.infer import infer
from frontends.http.routes import resolve

GET_MODEL = {"GET": queries.model_metadata}
TRACE = {"GET": settings.trace_settings, "POST": settings.update_trace_settings}
LOAD, UNLOAD, INDEX = {"POST": repository.load}, {"POST": repository.unload}, {"POST": repository.index}
STATUS, REGISTER, UNREGISTER = {"GET": regions.status}, {"POST": regions.register}, {"POST": regions.unregister}


@pytest.mark.parametrize(
    ("path", "category", "handlers", "names"),
    [
        ("/v2", "metadata", {"GET": queries.server_metadata}, {}),
        ("/v2/health/live", "health", {"GET": queries.server_live}, {}),
        ("/v2/health/ready?verbose", "health", {"GET": queries.server_ready}, {}),
        ("/v2/models/stats", "statistics", {"GET": queries.statistics}, {}),
        ("/v2/logging", "logging", {"GET": settings.log_settings, "POST": settings.update_log_settings}, {}),
        ("/v2/models/m", "metadata", GET_MODEL, {"model": "m"}),
        ("/v2/models/m/versions/3", "metadata", GET_MODEL, {"model": "m", "version": "3"}),
        ("/v2/models/a%20b/ready", "health", {"GET": queries.model_ready}, {"model": "a%20b"}),
        ("/v2/models/stats/ready", "health", {"GET": queries.model_ready}, {"model": "stats"}),
        ("/v2/models/m/infer", "inference", {"POST": infer}, {"model": "m"}),
        ("/v2/models/m/versions/12/infer?x=/config", "inference", {"POST": infer}, {"model": "m", "version": "12"}),
        ("/v2/models/m/generate", "inference", {"POST": generate.generate}, {"model": "m"}),
        (
            "/v2/models/m/versions/2/generate_stream",
            "inference",
            {"POST": generate.generate_stream},
            {"model": "m", "version": "2"},
        ),
        ("/v2/models/m/config", "model-config", {"GET": queries.model_config}, {"model": "m"}),
        ("/v2/models/m/stats", "statistics", {"GET": queries.model_statistics}, {"model": "m"}),
        ("/v2/trace/setting", "trace", TRACE, {}),
        ("/v2/models/m/trace/setting", "trace", TRACE, {"model": "m"}),
        ("/v2/systemsharedmemory/status", "shared-memory", STATUS, {"kind": "system"}),
        ("/v2/cudasharedmemory/region/r%2f/status", "shared-memory", STATUS, {"kind": "cuda", "region": "r%2f"}),
        ("/v2/systemsharedmemory/register", "shared-memory", REGISTER, {"kind": "system"}),
        ("/v2/cudasharedmemory/region/r/register", "shared-memory", REGISTER, {"kind": "cuda", "region": "r"}),
        ("/v2/systemsharedmemory/region/r/unregister", "shared-memory", UNREGISTER, {"kind": "system", "region": "r"}),
        ("/v2/cudasharedmemory/unregister", "shared-memory", UNREGISTER, {"kind": "cuda"}),
        ("/v2/repository/index", "model-repository", INDEX, {}),
        ("/v2/repository/models/index", "model-repository", INDEX, {"repository": "models"}),
        ("/v2/repository/models/m/load", "model-repository", LOAD, {"model": "m"}),
        ("/v2/repository/r/models/m/load", "model-repository", LOAD, {"repository": "r", "model": "m"}),
        ("/v2/repository/models/m/unload", "model-repository", UNLOAD, {"model": "m"}),
    ],
)
def test_routes(path: str, category: str, handlers: dict[str, Handler], names: dict[str, str]) -> None:
    target = resolve(path)
    assert target is not None
    assert (target.route.category, target.route.handlers, target.names) == (category, handlers, names)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v2/",
        "/V2",
        "/v2/models",
        "/v2/models/",
        "/v2/models/m/",
        "/v2/models/m/versions/x",
        "/v2/models/m/versions/-1/infer",
        "/v2/models/m/versions/1/trace/setting",
        "/v2/models/m/generate_stream/",
        "/v2/models/\udcff",
        "/v2/systemsharedmemory",
        "/v2/systemsharedmemory/region/status",
        "/v2/memory/status",
        "/v2/repository/models/load",
        "/v2/repository/a/b/index",
        "/v2/trace",
    ],
)
def test_no_route(path: str) -> None:
    assert resolve(path) is None
