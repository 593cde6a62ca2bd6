"""The recorded cases meet every error of the protocol, and every route with every method."""

import re

import pytest

from tests.golden.coverage import ERRORS, NO_SUCCESS, ROUTES, Error, routes, texts

TEXTS = texts()
ASKED = routes()


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.name)
def test_error_is_recorded(error: Error) -> None:
    for status in filter(None, (error.http, error.grpc)):
        assert error.times(TEXTS, status), f"no {status} with {error.phrase}"


@pytest.mark.parametrize(("pattern", "methods"), ROUTES)
def test_route_is_recorded(pattern: str, methods: tuple[str, ...]) -> None:
    here = [(method, is_fine) for method, path, is_fine in ASKED if re.fullmatch(pattern, path)]
    for method in methods:
        assert (method, True) in here or (NO_SUCCESS.match(pattern) and (method, False) in here), method
    for other in {"GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS"} - set(methods):
        assert (other, False) in here, other
