"""One HTTP connection: plain inference requests take the short way (`frontends.http.fast`), all others aiohttp's."""

import asyncio
import time
from typing import Any

from aiohttp import web

from broker.client import Client
from frontends.http.fast import FastPath, Head

_FAR = 1e6  # seconds: a connection whose request is under way is not idle


class Connection(web.RequestHandler):
    """aiohttp's connection, with the short way before it.

    Bytes go to aiohttp unless it waits for a new request and they begin with a plain one. While a plain request is
    under way what else arrives is kept until its answer has left.
    """

    __slots__ = ("_call", "_client", "_drained", "_fast", "_head", "_held", "_is_at_start", "_received")

    def __init__(self, manager: web.Server, client: Client, fast: FastPath, **options: Any) -> None:
        """`options` are aiohttp's."""
        super().__init__(manager, **options)
        self._client = client
        self._fast = fast
        self._call: int | None = None  # the plain request that is under way
        self._head: Head | None = None  # of a plain request whose body is not all there
        self._held = b""  # bytes not given to anyone yet
        self._is_at_start = True  # aiohttp has nothing but whole requests
        self._received = 0.0
        self._drained: asyncio.Future[None] | None = None

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        if self._held:
            data = self._held + data
            self._held = b""
        if self._call is not None:
            self._held = data
            return
        if self._head is None and self._is_idle():
            self._head = self._fast.head_of(data)
            self._received = time.monotonic()
        if self._head is None:
            self._pass_on(data)
            return
        end = self._head.size + self._head.body_size
        if len(data) < end:
            self._held = data
        else:
            self._serve(self._head, data, end)

    def connection_lost(self, exc: BaseException | None) -> None:
        """The client is gone."""
        if self._call is not None:
            self._client.cancel(self._call)
            self._finish()
        super().connection_lost(exc)

    def close(self) -> None:
        """Close when nothing is under way."""
        if self._call is None:
            super().close()
        else:
            self._close = True

    async def shutdown(self, timeout: float | None = 15.0) -> None:  # noqa: ASYNC109  # aiohttp's signature
        """Wait for the request that is under way, then close."""
        if self._call is not None:
            self._drained = self._loop.create_future()
            await asyncio.wait([self._drained], timeout=timeout)
        await super().shutdown(timeout)

    def _is_idle(self) -> bool:
        """Does aiohttp wait for the first byte of a request?"""
        if self._close or self._force_close or self._messages or not self._is_at_start:
            return False
        waiter = self._waiter
        return not waiter.done() if waiter is not None else self._request_count == 0

    def _pass_on(self, data: bytes) -> None:
        count = self._request_count
        super().data_received(data)
        self._is_at_start = self._request_count > count and data.endswith(b"\r\n\r\n")

    def _serve(self, head: Head, data: bytes, end: int) -> None:
        self._head = None
        plain = self._fast.read(head, data)
        call = self._fast.send(plain, self._received, self._reply) if plain is not None else None
        if call is None:
            self._pass_on(data)
            return
        self._call = call
        self._held = data[end:]
        self._next_keepalive_close_time = self._loop.time() + _FAR

    def _reply(self, response: bytes) -> None:
        if self._call is None or self.transport is None:
            return
        self._finish()
        self.transport.write(response)
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        if self._close:
            super().close()
            self.transport.close()
        elif self._held:
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        if self._held and self._call is None and not self._force_close:
            data, self._held = self._held, b""
            self.data_received(data)

    def _finish(self) -> None:
        self._call = None
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
