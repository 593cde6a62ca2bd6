"""The HTTP server: aiohttp's protocol on the listening socket that the broker owns."""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from aiohttp import web

from broker.child import Place
from broker.client import Client
from broker.messages import ErrorCode
from frontends.errors import RequestError
from frontends.http import replies
from frontends.http.call import Call, Options
from frontends.http.routes import resolve

BACKLOG = 1024
READ_BUFFER = 256 * 1024
"""Bytes of a body that are read ahead: what one read from the socket brings."""

_log = logging.getLogger(__name__)

Dispatch: TypeAlias = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class HttpServer:
    """The running server; see `frontends.lifecycle.Server`."""

    def __init__(self, listener: asyncio.AbstractServer, connections: web.Server) -> None:
        """`listener` accepts into `connections`."""
        self._listener = listener
        self._connections = connections

    async def drain(self, seconds: float) -> None:
        """Close the listener and idle connections, and wait for requests, for `seconds` at most."""
        self._listener.close()
        self._connections.pre_shutdown()
        await self._connections.shutdown(seconds)


async def listen(dispatch: Dispatch, descriptor: int) -> HttpServer:
    """Serve requests on an inherited listening socket; a client's disconnect cancels its request."""
    connections = web.Server(
        dispatch,
        handler_cancellation=True,
        access_log=None,
        auto_decompress=False,
        read_bufsize=READ_BUFFER,
    )
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(connections, sock=socket.socket(fileno=descriptor), backlog=BACKLOG)
    return HttpServer(listener, connections)


async def serve(client: Client, options: dict[str, Any], place: Place) -> HttpServer:
    """Start the HTTP frontend's server."""
    return await listen(dispatcher(client, Options.of(options)), place.descriptor)


def dispatcher(client: Client, options: Options) -> Dispatch:
    """What every request goes through: the route table, then its handler; errors become responses."""

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
        except ConnectionError:
            raise
        except Exception as error:
            _log.exception("%s %s failed", request.method, request.raw_path)
            return replies.failure(RequestError(ErrorCode.INTERNAL, f"{type(error).__name__}: {error}"))

    return dispatch
