"""`python -m frontends.http.sagemaker`: what Amazon SageMaker asks of a container that serves one model, or many."""

import logging
import os
import re
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from broker.child import Place
from broker.client import Client
from frontends.forwarding import Forwarding
from frontends.http import archives, generate, queries, replies
from frontends.http.call import Handler, Options
from frontends.http.default_model import of_default_model
from frontends.http.dispatch import Find, dispatcher
from frontends.http.framing import ContentTypeFraming
from frontends.http.infer import infer
from frontends.http.listener import HttpServer, listen
from frontends.lifecycle import run

MIME = "application/vnd.sagemaker-triton.binary+json"
PING_MODE = "SAGEMAKER_TRITON_PING_MODE"
INFERENCE_TYPE = "SAGEMAKER_TRITON_INFERENCE_TYPE"
DEFAULT_MODEL = "SAGEMAKER_TRITON_DEFAULT_MODEL_NAME"

_HANDLERS: dict[str, Handler] = {
    "infer": infer,
    "generate": generate.generate,
    "generate_stream": generate.generate_stream,
}
_MODELS = re.compile(r"/models(?:/(?P<model>[^/]+)(?P<invoke>/invoke)?)?")
_OF_MODELS: dict[tuple[str, bool, bool], Handler] = {
    ("GET", False, False): archives.list_models,
    ("POST", False, False): archives.load,
    ("GET", True, False): archives.show_model,
    ("DELETE", True, False): archives.unload,
    ("POST", True, True): archives.invoke,
}
"""By method, and whether the path has a model and asks to invoke it."""
_log = logging.getLogger(__name__)


async def serve(client: Client, options: dict[str, Any], place: Place) -> HttpServer:
    """Start serving."""
    own = Options.of(options)._replace(forwarding=Forwarding(""), framing=ContentTypeFraming(MIME))
    return await listen(dispatcher(finder(os.environ), client, own), place.descriptor)


def finder(environ: Mapping[str, str]) -> Find:
    """The routes, as the platform's environment variables want them; everything else is a bad request."""
    kind = environ.get(INFERENCE_TYPE, "infer")
    if kind not in _HANDLERS:
        _log.error(
            "%s is '%s', which is none of %s: it is taken as 'infer'", INFERENCE_TYPE, kind, ", ".join(_HANDLERS)
        )
    handler = of_default_model(_HANDLERS.get(kind, infer), environ.get(DEFAULT_MODEL, ""), DEFAULT_MODEL)
    routes: dict[tuple[str, str], Handler] = {
        ("GET", "/ping"): queries.server_live if environ.get(PING_MODE) == "live" else queries.server_ready,
        ("POST", "/invocations"): handler,
    }

    def find(request: web.BaseRequest) -> tuple[Handler, Mapping[str, str]] | web.Response:
        path = request.raw_path.partition("?")[0]
        found, names = routes.get((request.method, path)), {}
        models = _MODELS.fullmatch(path)
        if models is not None:
            model, invoke = models.groups()
            found = _OF_MODELS.get((request.method, model is not None, invoke is not None))
            names = {"model": model or ""}
        return (found, names) if found is not None else replies.health(is_good=False)

    return find


if __name__ == "__main__":
    run("sagemaker", serve)
