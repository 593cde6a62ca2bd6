"""`python -m frontends.http.vertex_ai`: what Google's Vertex AI asks of a container that serves predictions."""

import os
from collections.abc import Mapping
from typing import Any

from aiohttp import hdrs, web

from broker.child import Place
from broker.client import Client
from broker.messages import GetMetrics
from frontends.forwarding import Forwarding
from frontends.http import queries, regions, replies, repository
from frontends.http.call import Call, Handler, Options
from frontends.http.default_model import of_default_model
from frontends.http.dispatch import Find, dispatcher
from frontends.http.framing import ContentTypeFraming
from frontends.http.infer import infer
from frontends.http.listener import HttpServer, listen
from frontends.http.routes import resolve
from frontends.lifecycle import run
from frontends.metrics.exposition import CONTENT_TYPE, render

MIME = "application/vnd.vertex-ai-triton.binary+json"
REDIRECT = "X-Vertex-Ai-Triton-Redirect"
"""The header of a prediction that is to be answered as if it had come to this path."""
HEALTH_ROUTE = "AIP_HEALTH_ROUTE"
PREDICT_ROUTE = "AIP_PREDICT_ROUTE"

_NOT_REDIRECTED = {regions.register, regions.unregister, repository.load, repository.unload}


async def serve(client: Client, options: dict[str, Any], place: Place) -> HttpServer:
    """Start serving. Raises KeyError without the environment variables that name the routes."""
    own = Options.of(options)._replace(forwarding=Forwarding(""), framing=ContentTypeFraming(MIME))
    find = finder(os.environ[HEALTH_ROUTE], os.environ[PREDICT_ROUTE], options["vertex_ai_default_model"])
    return await listen(dispatcher(find, client, own), place.descriptor)


def finder(health: str, predict: str, model: str) -> Find:
    """The two routes of the platform; everything else is a bad request."""
    prediction = of_default_model(infer, model, "--vertex-ai-default-model")

    def find(request: web.BaseRequest) -> tuple[Handler, Mapping[str, str]] | web.Response:
        asked = request.method, request.raw_path.partition("?")[0]
        if asked == ("GET", health):
            return queries.server_ready, {}
        if asked != ("POST", predict):
            return replies.health(is_good=False)
        redirect = request.headers.get(REDIRECT)
        return (prediction, {}) if redirect is None else _redirected(redirect)

    return find


def _redirected(path: str) -> tuple[Handler, Mapping[str, str]] | web.Response:
    """What answers a path of ours, which comes without its first slash: all such requests are POSTs."""
    if path == "metrics":
        return _metrics, {}
    target = resolve(f"/{path}")
    if target is None:
        return replies.not_found()
    handler = target.route.handlers.get("POST") or target.route.handlers["GET"]
    if handler in _NOT_REDIRECTED:
        return replies.restricted(f"'{path}' is not served through a redirect")
    return handler, target.names


async def _metrics(call: Call) -> web.Response:
    return web.Response(body=render(await call.ask(GetMetrics)), headers={hdrs.CONTENT_TYPE: CONTENT_TYPE})


if __name__ == "__main__":
    run("vertex_ai", serve)
