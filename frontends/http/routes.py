"""The route table: the first pattern that matches a path decides."""

import re
from functools import lru_cache
from typing import NamedTuple

from frontends.http import queries
from frontends.http.call import Handler
from frontends.http.infer import infer

_MODEL = r"/v2/models/(?P<model>[^/]+)(?:/versions/(?P<version>[0-9]+))?"

ROUTES: tuple[tuple[str, str, Handler], ...] = (
    ("GET", r"/v2/models/stats", queries.statistics),
    ("GET", _MODEL, queries.model_metadata),
    ("GET", _MODEL + "/ready", queries.model_ready),
    ("POST", _MODEL + "/infer", infer),
    ("GET", _MODEL + "/config", queries.model_config),
    ("GET", _MODEL + "/stats", queries.model_statistics),
    ("GET", r"/v2", queries.server_metadata),
    ("GET", r"/v2/health/live", queries.server_live),
    ("GET", r"/v2/health/ready", queries.server_ready),
)


class Target(NamedTuple):
    """Where a path leads: a handler for each method, and what the path names."""

    handlers: dict[str, Handler]
    model: str
    version_text: str


_TABLE = [
    (re.compile(pattern), {method: handler for method, other, handler in ROUTES if other == pattern})
    for pattern in dict.fromkeys(pattern for _, pattern, _ in ROUTES)
]


@lru_cache(maxsize=4096)
def resolve(raw_path: str) -> Target | None:
    """The target of a path as it was sent: nothing is decoded, the query is ignored."""
    path = raw_path.partition("?")[0]
    if not _is_utf8(path):
        return None
    for pattern, handlers in _TABLE:
        match = pattern.fullmatch(path)
        if match is not None:
            names = match.groupdict()
            return Target(handlers, names.get("model") or "", names.get("version") or "")
    return None


def _is_utf8(path: str) -> bool:
    """False for a path with bytes that are no text: aiohttp passes them on as lone surrogates."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
