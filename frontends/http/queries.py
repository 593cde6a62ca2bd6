"""Everything that is asked about the server and its models: the broker answers, we write it as JSON."""

from typing import Any

from aiohttp import web

from broker.messages import (
    ErrorCode,
    GetLoading,
    GetModelConfig,
    GetModelMetadata,
    GetModelReady,
    GetServerReady,
    GetStatistics,
)
from frontends.errors import RequestError
from frontends.extensions import EXTENSIONS
from frontends.http.call import Call
from frontends.http.replies import document, health
from frontends.versions import NEWEST


async def server_metadata(call: Call) -> web.Response:
    """Who this server is and what it can do."""
    options = call.options
    return document({"name": options.server_id, "version": options.server_version, "extensions": EXTENSIONS})


async def server_live(call: Call) -> web.Response:
    """The server answers."""
    return health(await _is_ready(call, "live"))


async def server_ready(call: Call) -> web.Response:
    """Every model that should be served is; `?verbose` says which are and why others are not."""
    if "verbose" not in call.request.query:
        return health(await _is_ready(call, "ready"))
    answer = await _ask_server(call, is_verbose=True)
    return document(answer, 200 if answer["ready"] else 400)


async def loading(call: Call) -> web.Response:
    """The instances that are on their way to be ready, and how far each is."""
    return document(await call.ask(GetLoading))


async def _is_ready(call: Call, kind: str) -> bool:
    return bool((await _ask_server(call))[kind])


async def _ask_server(call: Call, is_verbose: bool = False) -> Any:
    answer = await call.ask(lambda number: GetServerReady(number, is_verbose))
    if not answer["live"]:
        raise RequestError(ErrorCode.UNAVAILABLE, "Server exiting")
    return answer


async def model_ready(call: Call) -> web.Response:
    """The model's version can be asked."""
    version = call.version
    if (await call.ask(lambda number: GetModelReady(number, call.model, version)))["ready"]:
        return health(is_good=True)
    raise RequestError(ErrorCode.UNKNOWN, "Model version not ready")


async def model_metadata(call: Call) -> web.Response:
    """Inputs, outputs and versions."""
    version = call.version
    return document(await call.ask(lambda number: GetModelMetadata(number, call.model, version)))


async def model_config(call: Call) -> web.Response:
    """The normalised model configuration."""
    version = call.version
    return document(await call.ask(lambda number: GetModelConfig(number, call.model, version)))


async def model_statistics(call: Call) -> web.Response:
    """The statistics of one model."""
    version = call.version
    return document(await call.ask(lambda number: GetStatistics(number, call.model, version)))


async def statistics(call: Call) -> web.Response:
    """The statistics of all models."""
    return document(await call.ask(lambda number: GetStatistics(number, "", NEWEST)))
