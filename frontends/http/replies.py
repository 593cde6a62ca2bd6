"""Whole responses: JSON documents, errors, nothing."""

from collections.abc import Mapping
from typing import Any

from aiohttp import hdrs, web

from frontends.errors import HTTP_STATUS, RequestError
from frontends.http.documents import dump

JSON = "application/json"
_JSON_HEADERS = {hdrs.CONTENT_TYPE: JSON}
_TEXT_HEADERS = {hdrs.CONTENT_TYPE: "text/plain"}


def document(content: Any) -> web.Response:
    """A JSON document."""
    return web.Response(body=dump(content), headers=_JSON_HEADERS)


def empty(is_success: bool) -> web.Response:
    """Yes or no without a body."""
    return web.Response(status=200 if is_success else 400, headers=_TEXT_HEADERS)


def failure(error: RequestError, headers: Mapping[str, str] | None = None) -> web.Response:
    """The error that a client sees, with further `headers`."""
    response = _failure(error.message, HTTP_STATUS[error.code])
    response.headers.update(headers or {})
    return response


def not_found() -> web.Response:
    """No such route."""
    return _failure("Not Found", 404)


def method_not_allowed() -> web.Response:
    """The route is there, for other methods."""
    return _failure("Method Not Allowed", 405, "Not Allowed")


def _failure(message: str, status: int, reason: str | None = None) -> web.Response:
    text = message.encode("utf-8", "replace").decode()
    return web.Response(body=dump({"error": text}), status=status, reason=reason, headers=_JSON_HEADERS)
