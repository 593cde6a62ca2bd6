"""The generate extension: inference in flat JSON, with one response or as a stream of server-sent events."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import NamedTuple

from aiohttp import hdrs, web

from broker.messages import ErrorCode, GetModelMetadata, Infer, Part
from frontends.errors import HTTP_STATUS, RequestError
from frontends.http.blocks import until_sent
from frontends.http.body import receive_text
from frontends.http.call import Call
from frontends.http.conversion import convert
from frontends.http.documents import parse
from frontends.http.generation import WRONG_COUNT, Declared, Generation, decode_generation, encode_generation, event
from frontends.http.orca import load_headers
from frontends.http.outputs import take_outputs
from frontends.http.replies import document, error_document, written
from shm.arena import Block

_EVENTS = {hdrs.CONTENT_TYPE: "text/event-stream; charset=utf-8"}


class _Question(NamedTuple):
    infer: Infer
    blocks: list[Block]


class _Refused(RequestError):
    """The request has not been queued."""


async def generate(call: Call) -> web.StreamResponse:
    """Serve a request to a model that answers it with one response."""
    texts: list[bytes] = []
    async with aclosing(_texts(call, await _question(call))) as answers:
        async for text in answers:
            texts.append(text)
            if len(texts) > 1:
                break
    response = written(texts[0]) if len(texts) == 1 else document({"error": WRONG_COUNT})
    response.headers.update(await load_headers(call))
    return response


async def generate_stream(call: Call) -> web.StreamResponse:
    """Serve a request with one event for each response; the next is asked for when the last is on its way.

    An error that comes first gives the stream its status, a later one ends it.
    """
    reply = web.StreamResponse(headers=_EVENTS)
    async with aclosing(_texts(call, await _question(call))) as answers:
        try:
            async for text in answers:
                await _send(call, reply, text)
        except _Refused:
            raise
        except RequestError as error:
            if not reply.prepared:
                reply.set_status(HTTP_STATUS[error.code])
            await _send(call, reply, error_document(error.message))
    return reply


async def _send(call: Call, reply: web.StreamResponse, text: bytes) -> None:
    if not reply.prepared:
        reply.headers.update(await load_headers(call))
        await reply.prepare(call.request)
    await reply.write(event(text))


async def _question(call: Call) -> _Question:
    """The request, ready to be sent. Raises RequestError."""
    received = time.monotonic()
    version = call.version
    metadata = await call.ask(lambda number: GetModelMetadata(number, call.model, version))
    declared = {each["name"]: Declared(each["datatype"], tuple(each["shape"])) for each in metadata["inputs"]}
    if call.request.headers.get(hdrs.CONTENT_ENCODING, "identity") != "identity":
        text = "Unsupported content-encoding, only 'identity' is supported."
        raise RequestError(ErrorCode.INVALID_ARG, text)
    limit = call.options.max_input_byte_size
    body = await receive_text(call.request, limit)
    generation: Generation = await convert(len(body), lambda: decode_generation(parse(body), declared, limit))
    with until_sent(call.client) as blocks:
        inputs = [
            await call.client.store(call.model, each.name, each.datatype, each.shape, each.data, blocks)
            for each in generation.inputs
        ]
        traceparent, tracestate = call.trace_context
        infer = Infer(
            request=call.client.number(),
            model=call.model,
            version=version,
            request_id=generation.request_id,
            inputs=tuple(inputs),
            outputs=(),
            parameters=generation.parameters,
            correlation_id=0,
            flags=0,
            priority=0,
            timeout_us=0,
            is_raw=False,
            received=received,
            traceparent=traceparent,
            tracestate=tracestate,
        )
        return _Question(infer, blocks)


async def _texts(call: Call, question: _Question) -> AsyncGenerator[bytes, None]:
    """Each response as JSON. Raises RequestError."""
    async with aclosing(call.client.stream(question.infer, question.blocks)) as responses:
        async for response in responses:
            began = time.monotonic_ns()
            try:
                if response.part & Part.CONTENT:
                    outputs = take_outputs(call.client, response)
                    encode = partial(encode_generation, response, outputs, question.infer.request_id)
                    yield await convert(sum(map(len, outputs)), encode)
                elif response.code != ErrorCode.OK:
                    raise _Refused(response.code, response.error)
            finally:  # whoever takes the texts comes back when they are sent
                if response.part & Part.TRACED:
                    call.client.delivered(response, began)
