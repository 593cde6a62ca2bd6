"""The route table: paths are matched as they were sent."""

import pytest

from frontends.errors import RequestError
from frontends.http import queries
from frontends.http.call import NEWEST, Handler, parse_version
from frontends.http.infer import infer
from frontends.http.routes import resolve


@pytest.mark.parametrize(
    ("method", "path", "handler", "model", "version"),
    [
        ("GET", "/v2", queries.server_metadata, "", ""),
        ("GET", "/v2/health/live", queries.server_live, "", ""),
        ("GET", "/v2/health/ready?verbose", queries.server_ready, "", ""),
        ("GET", "/v2/models/stats", queries.statistics, "", ""),
        ("GET", "/v2/models/m", queries.model_metadata, "m", ""),
        ("GET", "/v2/models/m/versions/3", queries.model_metadata, "m", "3"),
        ("GET", "/v2/models/a%20b/ready", queries.model_ready, "a%20b", ""),
        ("GET", "/v2/models/stats/ready", queries.model_ready, "stats", ""),
        ("POST", "/v2/models/m/infer", infer, "m", ""),
        ("POST", "/v2/models/m/versions/12/infer?x=/config", infer, "m", "12"),
        ("GET", "/v2/models/m/config", queries.model_config, "m", ""),
        ("GET", "/v2/models/m/stats", queries.model_statistics, "m", ""),
    ],
)
def test_routes(method: str, path: str, handler: Handler, model: str, version: str) -> None:
    target = resolve(path)
    assert target is not None
    assert target.handlers == {method: handler}
    assert (target.model, target.version_text) == (model, version)


@pytest.mark.parametrize(
    "path",
    ["/", "/v2/", "/V2", "/v2/models", "/v2/models/", "/v2/models/m/", "/v2/models/m/versions/x", "/v2/models/\udcff"],
)
def test_no_route(path: str) -> None:
    assert resolve(path) is None


def test_versions() -> None:
    assert parse_version("") == NEWEST
    assert parse_version("0") == 0
    assert parse_version("9223372036854775807") == 2**63 - 1
    for text in ("9223372036854775808", "9" * 5000):
        with pytest.raises(RequestError) as caught:
            parse_version(text)
        assert caught.value.message == (
            f"failed to get model version from specified version string '{text}' (details: stol), "
            "version should be an integral value > 0"
        )
