"""aiohttp's HTTP protocol on a listening socket that the broker owns."""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from broker.client import Client
from frontends.http.connection import Connection
from frontends.http.fast import FastPath

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


class ShortWay(NamedTuple):
    """What connections need to serve plain inference requests by themselves."""

    client: Client
    fast: FastPath


class _Connections(web.Server):
    """aiohttp's server, whose connections know the short way."""

    def __init__(self, short_way: ShortWay, dispatch: Dispatch, **options: Any) -> None:
        super().__init__(dispatch, **options)
        self._short_way = short_way

    def __call__(self) -> web.RequestHandler:
        return Connection(self, *self._short_way, loop=self._loop, **self._kwargs)


async def listen(
    dispatch: Dispatch, descriptor: int, tls: ssl.SSLContext | None = None, short_way: ShortWay | None = None
) -> HttpServer:
    """Serve requests on an inherited listening socket; a client's disconnect cancels its request."""
    connections = (web.Server if short_way is None else partial(_Connections, short_way))(
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
