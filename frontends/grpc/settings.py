"""The RPCs of the trace and logging extensions: settings that clients read and change while the server runs."""

from typing import Any

from broker.messages import ErrorCode, UpdateLogSettings, UpdateTraceSettings
from frontends.errors import RequestError
from frontends.grpc.messages import ProtoMessage
from frontends.grpc.queries import Rpc, query
from frontends.grpc.service import Service

_LOG_SETTINGS = {
    "log_file": ("string_param", "string"),
    "log_info": ("bool_param", "boolean"),
    "log_warning": ("bool_param", "boolean"),
    "log_error": ("bool_param", "boolean"),
    "log_verbose_level": ("uint32_param", "int32"),
    "log_format": ("string_param", "string"),
}
"""The field that holds the value of each log setting, and what errors call it; other settings are ignored."""
_FIELD = {bool: "bool_param", int: "uint32_param", str: "string_param"}

_BAD_COUNT = "Expecting value >= -1, got:"
"""Ends what the broker says of a trace count, in HTTP's words; over gRPC there is a space behind it."""


def _update_trace(number: int, request: ProtoMessage) -> UpdateTraceSettings:
    changes = {name: list(setting.value) or None for name, setting in request.settings.items()}
    return UpdateTraceSettings(number, request.model_name, changes)


_change_trace = query(
    _update_trace,
    lambda content: {"settings": {name: {"value": list(values)} for name, values in content.items()}},
)


async def _trace_setting(service: Service, request: ProtoMessage) -> dict[str, Any]:
    try:
        return await _change_trace(service, request)
    except RequestError as error:
        raise RequestError(error.code, error.message.replace(_BAD_COUNT, f"{_BAD_COUNT} ")) from None


def _update_log(number: int, request: ProtoMessage) -> UpdateLogSettings:
    changes: dict[str, Any] = {}
    for name, (field, expected) in _LOG_SETTINGS.items():
        if name in request.settings:
            value = request.settings[name]
            if value.WhichOneof("parameter_choice") != field:
                raise RequestError(ErrorCode.INVALID_ARG, f"expect {expected} for '{name}'")
            changes[name] = getattr(value, field)
    return UpdateLogSettings(number, changes)


SETTINGS: dict[str, Rpc] = {
    "TraceSetting": _trace_setting,
    "LogSettings": query(
        _update_log,
        lambda content: {"settings": {name: {_FIELD[type(value)]: value} for name, value in content.items()}},
    ),
}
"""By the name of the RPC in `inference.GRPCInferenceService`."""
