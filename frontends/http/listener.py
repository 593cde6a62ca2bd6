"""aiohttp's HTTP protocol on a listening socket that the broker owns."""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

BACKLOG = 1024
READ_BUFFER = 256 * 1024
"""Bytes of a body that are read ahead: what one read from the socket brings."""

_log = logging.getLogger(__name__)

Dispatch: TypeAlias = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
"""Answers one request."""


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
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):  # aiohttp's own limit counts for each of two steps
                await self._connections.shutdown(seconds)


async def listen(dispatch: Dispatch, descriptor: int, tls: ssl.SSLContext | None = None) -> HttpServer:
    """Serve requests on an inherited listening socket; a client's disconnect cancels its request."""
    connections = web.Server(
        dispatch,
        handler_cancellation=True,
        access_log=None,
        auto_decompress=False,
        read_bufsize=READ_BUFFER,
        logger=_log,
    )
    _log.addFilter(_is_ours)
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(connections, sock=socket.socket(fileno=descriptor), backlog=BACKLOG, ssl=tls)
    return HttpServer(listener, connections)


def _is_ours(record: logging.LogRecord) -> bool:
    """False for what clients do wrong: they are told, and cannot fill the log."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError)
