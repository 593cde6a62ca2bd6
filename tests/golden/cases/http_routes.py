"""Every route with every method, and paths that are no route."""

from tests.golden.build import get, http, one
from tests.golden.scenario import Scenario

METHODS = ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS")
MODEL = "/v2/models/identity_fp32"
ROUTES = {
    "all_statistics": "/v2/models/stats",
    "logging": "/v2/logging",
    "metadata": MODEL,
    "version_metadata": f"{MODEL}/versions/1",
    "ready": f"{MODEL}/ready",
    "version_ready": f"{MODEL}/versions/1/ready",
    "infer": f"{MODEL}/infer",
    "version_infer": f"{MODEL}/versions/1/infer",
    "generate": f"{MODEL}/generate",
    "version_generate": f"{MODEL}/versions/1/generate",
    "generate_stream": f"{MODEL}/generate_stream",
    "version_generate_stream": f"{MODEL}/versions/1/generate_stream",
    "config": f"{MODEL}/config",
    "version_config": f"{MODEL}/versions/1/config",
    "statistics": "/v2/models/matrix/stats",
    "version_statistics": "/v2/models/matrix/versions/1/stats",
    "model_trace": f"{MODEL}/trace/setting",
    "version_trace": f"{MODEL}/versions/1/trace/setting",
    "server": "/v2",
    "live": "/v2/health/live",
    "server_ready": "/v2/health/ready",
    "system_status": "/v2/systemsharedmemory/status",
    "system_region_status": "/v2/systemsharedmemory/region/none/status",
    "system_register": "/v2/systemsharedmemory/register",
    "system_region_register": "/v2/systemsharedmemory/region/none/register",
    "system_unregister": "/v2/systemsharedmemory/unregister",
    "system_region_unregister": "/v2/systemsharedmemory/region/none/unregister",
    "cuda_status": "/v2/cudasharedmemory/status",
    "cuda_region_status": "/v2/cudasharedmemory/region/none/status",
    "cuda_register": "/v2/cudasharedmemory/register",
    "cuda_region_register": "/v2/cudasharedmemory/region/none/register",
    "cuda_unregister": "/v2/cudasharedmemory/unregister",
    "cuda_region_unregister": "/v2/cudasharedmemory/region/none/unregister",
    "index": "/v2/repository/index",
    "repository_index": "/v2/repository/golden/index",
    "load": "/v2/repository/models/identity_fp32/load",
    "unload": "/v2/repository/models/identity_fp32/unload",
    "repository_load": "/v2/repository/golden/models/identity_fp32/load",
    "repository_unload": "/v2/repository/golden/models/identity_fp32/unload",
    "trace": "/v2/trace/setting",
}
NO_ROUTES = (
    "/",
    "/v2/",
    "/v3",
    "/V2",
    "/v2/health",
    "/v2/health/live/",
    "/v2/models",
    "/v2/models/",
    "/v2/models//ready",
    "/v2/models/identity_fp32/",
    "/v2/models/identity_fp32/versions",
    "/v2/models/identity_fp32/versions/",
    "/v2/models/identity_fp32/versions/latest",
    "/v2/models/identity_fp32/versions/-1",
    "/v2/models/identity_fp32/nothing",
    "/v2/models/identity_fp32/infer/",
    "/v2/systemsharedmemory",
    "/v2/systemsharedmemory/region/status",
    "/v2/repository",
    "/v2/trace",
    "/metrics",
)

ELSEWHERE = {
    ("all_statistics", "GET"),
    ("statistics", "GET"),
    ("version_statistics", "GET"),
    ("index", "POST"),
    ("repository_index", "POST"),
}
"""Their answers depend on the other cases, or have cases of their own."""

SCENARIOS: list[Scenario] = [
    *[
        one(f"{name}.{method}", http(method, path))
        for name, path in ROUTES.items()
        for method in METHODS
        if (name, method) not in ELSEWHERE
    ],
    *[one(f"no_route {path}", get(path)) for path in NO_ROUTES],
    one("no_route.POST", http("POST", "/v2/nothing", {})),
    one("no_route.PUT", http("PUT", "/v2/nothing", {})),
    one("unknown_method", http("BREW", "/v2")),
    one("query", get("/v2/health/live?verbose=1")),
    one("query_on_model", get("/v2/models/add_sub_int32?version=7")),
    one("percent_encoded", get("/v2/models/add%5Fsub")),
    one("percent_encoded_slash", get("/v2/models/add%2Fsub/config")),
    one("upper_case", get("/v2/models/ADD_SUB")),
    one("model_called_stats", get("/v2/models/stats/config")),
]
