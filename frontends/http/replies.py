"""Whole responses: JSON documents, errors, nothing."""

from collections.abc import Mapping
from typing import Any

from aiohttp import hdrs, web

from frontends.errors import HTTP_STATUS, RequestError
from frontends.http.documents import dump

JSON = "application/json"
_JSON_HEADERS = {hdrs.CONTENT_TYPE: JSON}
_TEXT_HEADERS = {hdrs.CONTENT_TYPE: "text/plain"}


def document(content: Any, status: int = 200) -> web.Response:
    """A JSON document."""
    return written(dump(content), status)


def written(text: bytes, status: int = 200) -> web.Response:
    """A JSON document that is written already."""
    return web.Response(body=text, status=status, headers=_JSON_HEADERS)


def error_document(message: str) -> bytes:
    """The body of an error."""
    return dump({"error": message.encode("utf-8", "replace").decode()})


def done() -> web.Response:
    """What was asked for has been done; there is nothing to say about it."""
    return web.Response(headers=_JSON_HEADERS)


def health(is_good: bool) -> web.Response:
    """Yes or no without a body."""
    return web.Response(status=200 if is_good else 400, headers=_TEXT_HEADERS)


def failure(error: RequestError, headers: Mapping[str, str] | None = None) -> web.Response:
    """The error that a client sees, with further `headers`."""
    response = _failure(error.message, HTTP_STATUS[error.code])
    response.headers.update(headers or {})
    return response


def refused(status: int, message: str = "") -> web.Response:
    """An error with a status of a platform's own, without a body where there is nothing to say."""
    return _failure(message, status) if message else web.Response(status=status, headers=_TEXT_HEADERS)


def restricted(message: str) -> web.Response:
    """A header is missing that this API is restricted to."""
    return _failure(message, 403)


def not_found() -> web.Response:
    """No such route."""
    return _failure("Not Found", 404)


def method_not_allowed() -> web.Response:
    """The route is there, for other methods."""
    return _failure("Method Not Allowed", 405, "Not Allowed")


def _failure(message: str, status: int, reason: str | None = None) -> web.Response:
    return web.Response(body=error_document(message), status=status, reason=reason, headers=_JSON_HEADERS)
