"""The trace and logging extensions: settings that clients read and change while the server runs."""

from typing import Any

from aiohttp import web

from broker.messages import ErrorCode, UpdateLogSettings, UpdateTraceSettings
from frontends.errors import RequestError
from frontends.http.body import receive_text
from frontends.http.call import Call
from frontends.http.documents import Members, array, boolean, is_object, parse, string, unsigned
from frontends.http.replies import document

_TRACE_SETTINGS = ("trace_file", "trace_level", "trace_rate", "trace_count", "log_frequency")
_LOG_SETTINGS = {
    "log_file": string,
    "log_info": boolean,
    "log_warning": boolean,
    "log_error": boolean,
    "log_verbose_level": unsigned,
    "log_format": string,
}


async def trace_settings(call: Call) -> web.Response:
    """How requests are traced, all or those of one model."""
    return await _change_trace(call, {})


async def update_trace_settings(call: Call) -> web.Response:
    """Change how requests are traced; null takes a setting back."""
    members = await _members(call)
    return await _change_trace(call, {n: _values(n, members[n]) for n in _TRACE_SETTINGS if n in members})


async def log_settings(call: Call) -> web.Response:
    """What is logged, and how."""
    return document(await call.ask(lambda number: UpdateLogSettings(number, {})))


async def update_log_settings(call: Call) -> web.Response:
    """Change what is logged; null means no change."""
    members = await _members(call)
    changes = {n: read(members[n]) for n, read in _LOG_SETTINGS.items() if members.get(n) is not None}
    try:
        return document(await call.ask(lambda number: UpdateLogSettings(number, changes)))
    except RequestError as error:
        if error.code != ErrorCode.INVALID_ARG:
            raise
        text = f"invalid argument for --log_format, got: {changes['log_format']}"  # what Triton says over HTTP
        raise RequestError(ErrorCode.UNAVAILABLE, text) from None


async def _change_trace(call: Call, changes: Members) -> web.Response:
    settings = await call.ask(lambda number: UpdateTraceSettings(number, call.model, changes))
    return document({name: v if name == "trace_level" else ",".join(v) for name, v in settings.items()})


def _values(name: str, value: Any) -> list[str] | None:
    """The values of a trace setting in a list, None where it is to be taken back."""
    if value is None:
        return None
    return [string(each) for each in array(value)] if name == "trace_level" else [string(value)]


async def _members(call: Call) -> Members:
    content: Any = parse(await receive_text(call.request, call.options.max_input_byte_size))
    return content if is_object(content) else {}
