"""The HTTP frontend: every request goes through the route table to its handler, errors become responses."""

import logging
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from broker.child import Place
from broker.client import Client
from broker.messages import ErrorCode
from frontends.errors import RequestError
from frontends.http import replies
from frontends.http.body import FramingError
from frontends.http.call import Call, Handler, Options
from frontends.http.listener import Dispatch, HttpServer, listen
from frontends.http.routes import resolve
from frontends.http.tls import tls_context
from frontends.labels import LabelSource

_log = logging.getLogger(__name__)


async def serve(client: Client, options: dict[str, Any], place: Place) -> HttpServer:
    """Start serving. Raises ValueError or OSError for options that cannot be."""
    dispatch = _dispatcher(client, Options.of(options), LabelSource(client))
    return await listen(dispatch, place.descriptor, tls_context(options))


def _dispatcher(client: Client, options: Options, labels: LabelSource) -> Dispatch:
    async def dispatch(request: web.BaseRequest) -> web.StreamResponse:
        found = _find(request, options)
        if isinstance(found, web.Response):
            return found
        handler, names = found
        try:
            return await handler(Call(client, options, labels, request, names))
        except FramingError as error:
            response = replies.failure(error)
            response.force_close()
            return response
        except RequestError as error:
            return replies.failure(error)
        except web.RequestPayloadError as error:
            return replies.failure(RequestError(ErrorCode.INVALID_ARG, f"unreadable request body: {error}"))
        except ConnectionError:  # the client is gone: aiohttp ends the connection
            raise
        except Exception as error:
            _log.exception("%s %s failed", request.method, request.raw_path)
            return replies.failure(RequestError(ErrorCode.INTERNAL, f"{type(error).__name__}: {error}"))

    return dispatch


def _find(request: web.BaseRequest, options: Options) -> tuple[Handler, Mapping[str, str]] | web.Response:
    """The handler of a request and the names in its path; or the refusal, of which the first counts."""
    target = resolve(request.raw_path)
    if target is None:
        return replies.not_found()
    refusal = options.restrictions.refusal(target.route.category, request.headers)
    if refusal is not None:
        return replies.restricted(refusal)
    handler = target.route.handlers.get(request.method)
    return replies.method_not_allowed() if handler is None else (handler, target.names)
