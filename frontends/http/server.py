"""The HTTP frontend: Triton's routes, restricted where the server's options say so."""

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from broker.child import Place
from broker.client import Client
from frontends.http import replies
from frontends.http.call import Handler, Options
from frontends.http.dispatch import Find, dispatcher
from frontends.http.listener import HttpServer, listen
from frontends.http.routes import resolve
from frontends.http.tls import tls_context
from frontends.restricted import Restrictions


async def serve(client: Client, options: dict[str, Any], place: Place) -> HttpServer:
    """Start serving. Raises OSError for certificates that are none."""
    find = _finder(Restrictions.parse(options["http_restricted_api"]))
    return await listen(dispatcher(find, client, Options.of(options)), place.descriptor, tls_context(options))


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
