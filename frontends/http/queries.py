"""Everything that is asked about the server and its models: the broker answers, we write it as JSON."""

from typing import Any

from aiohttp import web

from broker.messages import (
    ErrorCode,
    GetModelConfig,
    GetModelMetadata,
    GetModelReady,
    GetServerReady,
    GetStatistics,
    Message,
)
from frontends.errors import RequestError
from frontends.extensions import EXTENSIONS
from frontends.http.call import NEWEST, Call
from frontends.http.replies import document, empty


async def server_metadata(call: Call) -> web.Response:
    """Who this server is and what it can do."""
    options = call.options
    return document({"name": options.server_id, "version": options.server_version, "extensions": EXTENSIONS})


async def server_live(call: Call) -> web.Response:
    """The server answers."""
    return empty((await _server_ready(call))["live"])


async def server_ready(call: Call) -> web.Response:
    """Every model that should be served is."""
    return empty((await _server_ready(call))["ready"])


async def model_ready(call: Call) -> web.Response:
    """The model's version can be asked."""
    number = call.client.number()
    if (await _ask(call, GetModelReady(number, call.model, call.version), number))["ready"]:
        return empty(is_success=True)
    raise RequestError(ErrorCode.UNKNOWN, "Model version not ready")


async def model_metadata(call: Call) -> web.Response:
    """Inputs, outputs and versions."""
    number = call.client.number()
    return document(await _ask(call, GetModelMetadata(number, call.model, call.version), number))


async def model_config(call: Call) -> web.Response:
    """The normalised model configuration."""
    number = call.client.number()
    return document(await _ask(call, GetModelConfig(number, call.model, call.version), number))


async def model_statistics(call: Call) -> web.Response:
    """The statistics of one model."""
    number = call.client.number()
    return document(await _ask(call, GetStatistics(number, call.model, call.version), number))


async def statistics(call: Call) -> web.Response:
    """The statistics of all models."""
    number = call.client.number()
    return document(await _ask(call, GetStatistics(number, "", NEWEST), number))


async def _server_ready(call: Call) -> Any:
    number = call.client.number()
    return await _ask(call, GetServerReady(number), number)


async def _ask(call: Call, question: Message, number: int) -> Any:
    """The content of the answer. Raises RequestError."""
    answer = await call.client.ask(question, number)
    if answer.code != ErrorCode.OK:
        raise RequestError(answer.code, answer.error)
    return answer.content
