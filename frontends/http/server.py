"""The HTTP frontend: Triton's routes, restricted where the server's options say so."""

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from broker.child import Place
from broker.client import Client
from frontends.http import replies
from frontends.http.call import Handler, Options
from frontends.http.dispatch import Find, dispatcher
from frontends.http.fast import FastPath
from frontends.http.listener import HttpServer, ShortWay, listen
from frontends.http.routes import resolve
from frontends.http.tls import tls_context
from frontends.restricted import Restrictions


async def serve(client: Client, options: dict[str, Any], place: Place) -> HttpServer:
    """Start serving. Raises OSError for certificates that are none."""
    restrictions = Restrictions.parse(options["http_restricted_api"])
    chosen = Options.of(options)
    depends_on_headers = chosen.forwarding.is_on or restrictions.refusal("inference", {}) is not None
    short_way = None if depends_on_headers else ShortWay(client, FastPath(client, chosen.max_input_byte_size))
    return await listen(
        dispatcher(_finder(restrictions), client, chosen), place.descriptor, tls_context(options), short_way
    )


def _finder(restrictions: Restrictions) -> Find:
    def find(request: web.BaseRequest) -> tuple[Handler, Mapping[str, str]] | web.Response:
        """Of several reasons to refuse a request the first counts."""
        target = resolve(request.raw_path)
        if target is None:
            return replies.not_found()
        refusal = restrictions.refusal(target.route.category, request.headers)
        if refusal is not None:
            return replies.restricted(refusal)
        handler = target.route.handlers.get(request.method)
        return replies.method_not_allowed() if handler is None else (handler, target.names)

    return find
