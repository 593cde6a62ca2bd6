"""The route table: the first pattern that matches a path decides."""

import re
from functools import lru_cache
from typing import NamedTuple

from frontends.http import generate, queries, regions, repository, settings
from frontends.http.call import Handler
from frontends.http.infer import infer

_MODEL = r"/v2/models/(?P<model>[^/]+)(?:/versions/(?P<version>[0-9]+))?"
_MEMORY = r"/v2/(?P<kind>system|cuda)sharedmemory(?:/region/(?P<region>[^/]+))?"
_REPOSITORY = r"/v2/repository(?:/(?P<repository>[^/]+))?"
_TRACE = r"/v2(?:/models/(?P<model>[^/]+))?/trace/setting"


class Route(NamedTuple):
    """A handler for each method, and the category that may be restricted."""

    pattern: str
    category: str
    handlers: dict[str, Handler]


ROUTES = (
    Route(r"/v2/models/stats", "statistics", {"GET": queries.statistics}),
    Route(r"/v2/logging", "logging", {"GET": settings.log_settings, "POST": settings.update_log_settings}),
    Route(_MODEL, "metadata", {"GET": queries.model_metadata}),
    Route(_MODEL + "/ready", "health", {"GET": queries.model_ready}),
    Route(_MODEL + "/infer", "inference", {"POST": infer}),
    Route(_MODEL + "/generate", "inference", {"POST": generate.generate}),
    Route(_MODEL + "/generate_stream", "inference", {"POST": generate.generate_stream}),
    Route(_MODEL + "/config", "model-config", {"GET": queries.model_config}),
    Route(_MODEL + "/stats", "statistics", {"GET": queries.model_statistics}),
    Route(_TRACE, "trace", {"GET": settings.trace_settings, "POST": settings.update_trace_settings}),
    Route(r"/v2", "metadata", {"GET": queries.server_metadata}),
    Route(r"/v2/health/live", "health", {"GET": queries.server_live}),
    Route(r"/v2/health/ready", "health", {"GET": queries.server_ready}),
    Route(r"/v2/health/loading", "health", {"GET": queries.loading}),
    Route(_MEMORY + "/status", "shared-memory", {"GET": regions.status}),
    Route(_MEMORY + "/register", "shared-memory", {"POST": regions.register}),
    Route(_MEMORY + "/unregister", "shared-memory", {"POST": regions.unregister}),
    Route(_REPOSITORY + "/index", "model-repository", {"POST": repository.index}),
    Route(_REPOSITORY + r"/models/(?P<model>[^/]+)/load", "model-repository", {"POST": repository.load}),
    Route(_REPOSITORY + r"/models/(?P<model>[^/]+)/unload", "model-repository", {"POST": repository.unload}),
)


class Target(NamedTuple):
    """Where a path leads: its route, and the parts that the route's pattern names."""

    route: Route
    names: dict[str, str]


_HOST = re.compile(r"^https?://[^/?]*", re.IGNORECASE)
_TABLE = [(re.compile(route.pattern), route) for route in ROUTES]


@lru_cache(maxsize=4096)
def resolve(raw_path: str) -> Target | None:
    """The target of a path as it was sent: nothing is decoded, the query is ignored, and so is the host of a URL."""
    path = _HOST.sub("", raw_path).partition("?")[0]
    if not _is_utf8(path):
        return None
    for pattern, route in _TABLE:
        match = pattern.fullmatch(path)
        if match is not None:
            return Target(route, {name: part for name, part in match.groupdict().items() if part is not None})
    return None


def _is_utf8(path: str) -> bool:
    """False for a path with bytes that are no text: aiohttp passes them on as lone surrogates."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
