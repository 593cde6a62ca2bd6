"""The shared memory extensions: regions that clients register, system (POSIX) and CUDA alike."""

import base64
import binascii
from typing import Any

from aiohttp import web

from broker.messages import ErrorCode, GetRegionStatus, RegisterRegion, UnregisterRegion
from frontends import shared_memory
from frontends.errors import RequestError
from frontends.http.body import receive_text
from frontends.http.call import Call
from frontends.http.documents import Members, is_object, member, parse, string, unsigned
from frontends.http.replies import document, done


async def status(call: Call) -> web.Response:
    """What is registered: one region, or all of the kind."""
    kind, name = call.names["kind"], call.names.get("region", "")
    return document(await call.ask(lambda number: GetRegionStatus(number, name, kind)))


async def register(call: Call) -> web.Response:
    """Register memory of the client's under a name."""
    kind, name = call.names["kind"], call.names.get("region", "")
    if not name:
        text = f"'region name' is necessary to register {kind} shared memory region"
        raise RequestError(ErrorCode.INVALID_ARG, text)
    shared_memory.refuse_if_disabled(call.options.allows_client_memory)
    content: Any = parse(await receive_text(call.request, call.options.max_input_byte_size))
    members = content if is_object(content) else {}
    number = call.client.number()
    wanted = _system(number, name, members) if kind == "system" else _cuda(number, name, members)
    await shared_memory.register(call.client, wanted)
    return done()


async def unregister(call: Call) -> web.Response:
    """Forget a region, or all of the kind."""
    kind, name = call.names["kind"], call.names.get("region", "")
    shared_memory.refuse_if_disabled(call.options.allows_client_memory)
    await call.ask(lambda number: UnregisterRegion(number, name, kind))
    return done()


def _system(number: int, name: str, members: Members) -> RegisterRegion:
    key = string(_field(members, "key"))
    offset = unsigned(members.get("offset", 0))
    byte_size = unsigned(_field(members, "byte_size"))
    return RegisterRegion(number, name, "system", key, offset, byte_size, 0, b"")


def _cuda(number: int, name: str, members: Members) -> RegisterRegion:
    text = string(member(_field(members, "raw_handle"), "b64", ""))
    byte_size = unsigned(member(members, "byte_size", ""))
    device_id = unsigned(member(members, "device_id", ""))
    return RegisterRegion(number, name, "cuda", "", 0, byte_size, device_id, _handle(text))


def _field(members: Members, name: str) -> Any:
    if name not in members:
        raise RequestError(ErrorCode.INVALID_ARG, f"Shared memory register request has no '{name}' field")
    return members[name]


def _handle(text: str) -> bytes:
    try:
        handle = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        handle = b""
    if len(handle) != shared_memory.CUDA_HANDLE:
        text = "'raw_handle' must be a valid base64 encoded cudaIpcMemHandle_t"
        raise RequestError(ErrorCode.INVALID_ARG, text)
    return handle
