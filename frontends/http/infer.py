"""Inference over HTTP: a body to shared memory and onto the fabric, a response to the socket."""

import asyncio
import struct
import time
from functools import partial

from aiohttp import hdrs, web

from broker.messages import ErrorCode, GetModelConfig, Infer, Part, Response
from frontends.errors import RequestError
from frontends.http.blocks import until_sent
from frontends.http.body import ALIGNMENT, ROOM, SMALL, Body, receive
from frontends.http.call import Call
from frontends.http.codec import Input, Reply, Request, Selection, decode_request, encode_response
from frontends.http.compression import ACCEPTED, UnknownEncoding, choose, compress
from frontends.http.conversion import convert
from frontends.http.documents import parse
from frontends.http.outputs import take_outputs
from frontends.http.replies import JSON, failure
from frontends.parameters import NO_PARAMETERS
from shm.arena import INLINE, Block, inline
from shm.ref import TensorRef

ENDPOINT = "HTTP end point"
"""What a client is told cannot serve a decoupled model."""

_RAW = Request("", NO_PARAMETERS, [], Selection({}, is_binary=True))


async def infer(call: Call) -> web.StreamResponse:
    """Serve one inference request. Raises RequestError."""
    received = time.monotonic()
    version = call.version
    try:
        with until_sent(call.client) as blocks:
            request, body = await _read(call, blocks)
            forwarded = call.options.forwarding.parameters(call.request.headers.items())
            inputs = await _stored(call, request, body, blocks)
    except RequestError as error:
        await _refuse_unknown(call, version)
        if isinstance(error, UnknownEncoding):
            return failure(error, {hdrs.ACCEPT_ENCODING: ACCEPTED})
        raise
    question = _question(call, request, inputs, version, received)
    if forwarded:
        question = question._replace(parameters={**question.parameters, **forwarded})
    response = await call.client.infer(question, blocks)
    if response.part & Part.TRACED:
        return await _send_traced(call, request, response)
    return await _send(call, await _reply(call, request, response))


async def _send_traced(call: Call, request: Request, response: Response) -> web.StreamResponse:
    """Send a response whose trace wants to know when that was, an error, too."""
    try:
        reply = await _reply(call, request, response)
        began = time.monotonic_ns()
        sent = await _send(call, reply)
    except RequestError as error:
        began = time.monotonic_ns()
        sent = failure(error)
    await sent.prepare(call.request)
    await sent.write_eof()  # else aiohttp would do it after us
    call.client.delivered(response, began)
    return sent


async def _reply(call: Call, request: Request, response: Response) -> Reply:
    outputs = take_outputs(call.client, response)
    classes = None
    if request.selection.has_classes:
        classes = await call.labels.of(response.model, response.version)
    encode = partial(encode_response, response, outputs, request.request_id, request.selection, classes)
    return await convert(sum(map(len, outputs)), encode)


async def _read(call: Call, blocks: list[Block]) -> tuple[Request, Body]:
    body = await receive(call, blocks)
    if not body.text:
        return _RAW, body
    decode = partial(_decode, body, call.model, call.options.max_input_byte_size)
    return await convert(len(body.text), decode), body


def _decode(body: Body, model: str, limit: int) -> Request:
    return decode_request(parse(body.text), body.binary, model, limit)


async def _stored(call: Call, request: Request, body: Body, blocks: list[Block]) -> tuple[TensorRef, ...]:
    """The inputs where workers can read them."""
    if not body.text:
        return (await _store_raw(call, body, blocks),)
    return tuple([await _store(call, each, body, blocks) for each in request.inputs])


async def _store(call: Call, given: Input | TensorRef, body: Body, blocks: list[Block]) -> TensorRef:
    if isinstance(given, TensorRef):
        return given
    name, datatype, shape, data, start = given
    if start >= 0 and body.block is not None:
        return body.block.ref(name, datatype, shape, body.start + start, len(data))
    if len(data) <= INLINE:
        return inline(name, datatype, shape, data)
    return await call.client.store(call.model, name, datatype, shape, data, blocks)


async def _store_raw(call: Call, body: Body, blocks: list[Block]) -> TensorRef:
    """A raw request's only input, with its length in the ROOM before it: only the core knows what it is."""
    size = len(body.binary)
    prefix = struct.pack("<I", size % 2**32)
    if body.block is None and size + ROOM <= INLINE:
        return TensorRef("", "", (), size, prefix + body.binary)
    block, start = body.block, body.start
    if block is None:
        start = ALIGNMENT
        block = await call.client.allocate(call.model, start + size)
        blocks.append(block)
        block.view(start, size)[:] = body.binary
    block.view(start - ROOM, ROOM)[:] = prefix
    return block.ref("", "", (), start, size)


def _question(call: Call, request: Request, inputs: tuple[TensorRef, ...], version: int, received: float) -> Infer:
    parameters = request.parameters
    traceparent, tracestate = call.trace_context
    return Infer(
        request=call.client.number(),
        model=call.model,
        version=version,
        request_id=request.request_id,
        inputs=inputs,
        outputs=tuple(request.selection.listed),
        parameters=parameters.custom,
        correlation_id=parameters.correlation_id,
        flags=parameters.flags,
        priority=parameters.priority,
        timeout_us=parameters.timeout_us,
        is_raw=request is _RAW,
        received=received,
        endpoint=ENDPOINT,
        targets=request.selection.targets,
        traceparent=traceparent,
        tracestate=tracestate,
    )


async def _refuse_unknown(call: Call, version: int) -> None:
    """Raise the error of a model or version that cannot be asked, if that is so: it comes before all others."""
    config = await call.ask(lambda number: GetModelConfig(number, call.model, version))
    if config.get("model_transaction_policy", {}).get("decoupled", False):
        text = f"{ENDPOINT} doesn't support models with decoupled transaction policy"
        raise RequestError(ErrorCode.UNSUPPORTED, text)


async def _send(call: Call, reply: Reply) -> web.StreamResponse:
    parts = [reply.text, *reply.blobs]
    size = sum(map(len, parts))
    is_json = size == len(reply.text)
    headers: dict[str, str] = {hdrs.CONTENT_TYPE: JSON} if is_json else call.options.framing.headers(len(reply.text))
    accepted = call.request.headers.get(hdrs.ACCEPT_ENCODING)
    if accepted is not None and (encoding := choose(accepted)) != "identity":
        headers[hdrs.CONTENT_ENCODING] = encoding
        parts = [await asyncio.to_thread(compress, b"".join(parts), encoding)]
        size = len(parts[0])
    if size <= SMALL:
        return web.Response(body=b"".join(parts), headers=headers)
    headers[hdrs.CONTENT_LENGTH] = str(size)
    response = web.StreamResponse(headers=headers)
    await response.prepare(call.request)
    for part in parts:
        await response.write(part)
    return response
