"""The model repository extension: what the repository holds, models loaded and unloaded on request."""

import base64
import binascii
from typing import Any

from aiohttp import web

from broker.messages import ErrorCode, GetRepositoryIndex, LoadModel, UnloadModel
from frontends.errors import RequestError
from frontends.http.body import receive_text
from frontends.http.call import Call
from frontends.http.conversion import convert
from frontends.http.documents import Members, boolean, is_object, parse, string
from frontends.http.replies import document, done

_FILE = "file:"
"""Begins the name of a load parameter that holds a file of the model."""


async def index(call: Call) -> web.Response:
    """All models, with the state of each version."""
    ready = (await _members(call)).get("ready", False)
    if type(ready) is not bool:
        raise RequestError(ErrorCode.INVALID_ARG, "Invalid value for 'ready': expected a boolean")
    return document(await call.ask(lambda number: GetRepositoryIndex(number, ready)))


async def load(call: Call) -> web.Response:
    """Load a model, perhaps with another configuration or other files; done when it is loaded."""
    _refuse_repository(call)
    parameters = _parameters(await _members(call))
    size = sum(len(value) for value in parameters.values() if type(value) is str)
    config, files = await convert(size, lambda: _override(parameters))
    await call.ask(lambda number: LoadModel(number, call.model, config, files))
    return done()


async def unload(call: Call) -> web.Response:
    """Unload a model; done when that has begun."""
    _refuse_repository(call)
    dependents = boolean(_parameters(await _members(call)).get("unload_dependents", False), "unload_dependents")
    await call.ask(lambda number: UnloadModel(number, call.model, dependents))
    return done()


def _refuse_repository(call: Call) -> None:
    if "repository" in call.names:
        raise RequestError(ErrorCode.UNSUPPORTED, "'repository_name' specification is not supported")


async def _members(call: Call) -> Members:
    """The members of the body, which may be missing."""
    text = await receive_text(call.request, call.options.max_input_byte_size)
    content: Any = await convert(len(text), lambda: parse(text)) if text else {}
    return content if is_object(content) else {}


def _parameters(members: Members) -> Members:
    given = members.get("parameters", {})
    if not is_object(given):
        raise RequestError(ErrorCode.INTERNAL, "attempt to get members for non-object")
    return given


def _override(parameters: Members) -> tuple[str, dict[str, bytes]]:
    """The configuration and the files (by their path in the model's directory) of a load. Raises RequestError."""
    config = ""
    files: dict[str, bytes] = {}
    for name, value in parameters.items():
        text = string(value)
        if name == "config":
            config = text
        elif name.startswith(_FILE):
            files[string(name.removeprefix(_FILE))] = _content(name, text)
        else:
            raise RequestError(ErrorCode.INTERNAL, "unexpected error on creating Triton parameter")
    return config, files


def _content(name: str, text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise RequestError(ErrorCode.INVALID_ARG, f"the value of load parameter '{name}' is not base64") from None
