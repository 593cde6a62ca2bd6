"""The metrics page: each scrape asks the broker for a snapshot."""

from typing import Any

from aiohttp import hdrs, web

from broker.child import Place
from broker.client import Client
from broker.messages import ErrorCode, GetMetrics
from frontends.errors import RequestError
from frontends.http import replies
from frontends.http.listener import Dispatch, HttpServer, listen
from frontends.metrics.exposition import CONTENT_TYPE, render

_HEADERS = {hdrs.CONTENT_TYPE: CONTENT_TYPE}


async def serve(client: Client, options: dict[str, Any], place: Place) -> HttpServer:
    """Start serving `/metrics`; every other path is an empty page, as Triton has it."""
    return await listen(_dispatcher(client), place.descriptor)


def _dispatcher(client: Client) -> Dispatch:
    async def dispatch(request: web.BaseRequest) -> web.StreamResponse:
        if request.method != hdrs.METH_GET:
            return replies.method_not_allowed()
        if request.raw_path.partition("?")[0].rstrip("/") != "/metrics":
            return web.Response(headers=_HEADERS)
        number = client.number()
        answer = await client.ask(GetMetrics(number), number)
        if answer.code != ErrorCode.OK:
            return replies.failure(RequestError(answer.code, answer.error))
        return web.Response(body=render(answer.content), headers=_HEADERS)

    return dispatch
