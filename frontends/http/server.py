"""The HTTP frontend: every request goes through the route table to its handler, errors become responses."""

import logging
from typing import Any

from aiohttp import web

from broker.child import Place
from broker.client import Client
from broker.messages import ErrorCode
from frontends.errors import RequestError
from frontends.http import replies
from frontends.http.call import Call, Options
from frontends.http.listener import Dispatch, HttpServer, listen
from frontends.http.routes import resolve

_log = logging.getLogger(__name__)


async def serve(client: Client, options: dict[str, Any], place: Place) -> HttpServer:
    """Start serving."""
    return await listen(_dispatcher(client, Options.of(options)), place.descriptor)


def _dispatcher(client: Client, options: Options) -> Dispatch:
    async def dispatch(request: web.BaseRequest) -> web.StreamResponse:
        target = resolve(request.raw_path)
        if target is None:
            return replies.not_found()
        handler = target.handlers.get(request.method)
        if handler is None:
            return replies.method_not_allowed()
        try:
            return await handler(Call(client, options, request, target.model, target.version_text))
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
