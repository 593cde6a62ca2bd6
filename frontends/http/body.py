"""Reading the body of an inference request: small ones into memory, large binary ones straight into a block."""

import asyncio
from typing import NamedTuple

from aiohttp import hdrs, web
from multidict import istr

from broker.client import Client
from broker.messages import ErrorCode
from frontends.errors import RequestError
from frontends.http.compression import decompress, is_compressed
from shm import copies
from shm.arena import Block, Buffer

HEADER_LENGTH = istr("Inference-Header-Content-Length")
"""The header that says how much of a body is JSON; the rest are binary tensors."""
SMALL = 64 * 1024
"""Bodies of up to this many bytes are read into memory."""
ALIGNMENT = 64
"""The binary section begins at a multiple of this, for the vector instructions that read it."""
ROOM = 4
"""Bytes before the data of a raw request, for the length that a BYTES element needs."""

_LIMIT_ADVICE = "Use --http-max-input-size to increase the limit."


class Body(NamedTuple):
    """A request's JSON `text`, empty for a raw request, and its `binary` section.

    Where the section lies in shared memory already, that is at `start` of `block`, with ROOM before it.
    """

    text: Buffer
    binary: Buffer
    block: Block | None = None
    start: int = 0


async def receive(request: web.BaseRequest, client: Client, model: str, limit: int, blocks: list[Block]) -> Body:
    """Read the body; a block that it needs is added to `blocks`. Raises RequestError, ArenaFull.

    `limit` is the most bytes of JSON, of a raw request and of a decompressed body.
    """
    headers = request.headers
    encoding = headers.get(hdrs.CONTENT_ENCODING)
    compressed = encoding is not None and is_compressed(encoding)
    length = _header_length(headers.get(HEADER_LENGTH))
    if headers.get(hdrs.EXPECT, "").lower() == "100-continue" and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    if compressed:
        packed = await _collect(request, limit)
        return _split(await asyncio.to_thread(decompress, packed, limit), length, limit)
    size = request.content_length
    if size is None or size <= SMALL or length is None:
        return _split(await _collect(request, limit if length is None else None), length, limit)
    _check_length(length, size, limit)
    return await _receive_into_block(request, client, model, length, blocks)


def _header_length(value: str | None) -> int | None:
    """The length that the client gives its JSON; None when it gives none."""
    if value is None:
        return None
    try:
        length = int(value)
    except ValueError:
        text = f"Unable to parse {HEADER_LENGTH}, got: {value}"
        raise RequestError(ErrorCode.INVALID_ARG, text) from None
    if not -(2**31) <= length < 2**31:
        text = f"Unable to parse {HEADER_LENGTH}, value is out of range [ -2147483648, 2147483647 ], got: {value}"
        raise RequestError(ErrorCode.INVALID_ARG, text)
    return length


def _check_length(length: int | None, size: int, limit: int) -> None:
    """Whether a body of `size` bytes may have JSON of `length` bytes; None makes all of it JSON."""
    if length is not None and not 0 <= length <= size:
        text = f"inference header size should be in range (0, {size}), got: {length}"
        raise RequestError(ErrorCode.INVALID_ARG, text)
    json_size = size if length is None else length
    if json_size > limit:
        raise RequestError(
            ErrorCode.INVALID_ARG,
            f"request JSON size of {json_size} bytes exceeds the maximum allowed input size of {limit} bytes. "
            f"{_LIMIT_ADVICE}",
        )
    if json_size == 0 and size > limit:
        raise RequestError(
            ErrorCode.INVALID_ARG,
            f"Raw input has a byte_size ({size} bytes) that exceeds the maximum allowed value of {limit} bytes. "
            f"{_LIMIT_ADVICE}",
        )


def _split(data: Buffer, length: int | None, limit: int) -> Body:
    _check_length(length, len(data), limit)
    if length is None:
        return Body(data, b"")
    view = memoryview(data)
    return Body(view[:length], view[length:])


async def _collect(request: web.BaseRequest, limit: int | None) -> Buffer:
    """The whole body in memory, of which at most `limit` bytes can be of use."""
    content = request.content
    if content.is_eof():  # it came with the headers
        return content.read_nowait()
    if limit is not None:
        _check_length(None, request.content_length or 0, limit)
    data = bytearray()
    while chunk := await content.readany():
        data += chunk
        if limit is not None:
            _check_length(None, len(data), limit)
    return data


async def _receive_into_block(
    request: web.BaseRequest, client: Client, model: str, length: int, blocks: list[Block]
) -> Body:
    size = request.content_length or 0
    begin = -length % ALIGNMENT if length else ALIGNMENT
    block = await client.allocate(model, begin + size)
    blocks.append(block)
    view = block.view(begin, size)
    position = 0
    while position < size:
        chunk, _ = await request.content.readchunk()
        if not chunk and request.content.at_eof():
            raise RequestError(ErrorCode.INVALID_ARG, f"the body ends after {position} of {size} bytes")
        view[position : position + len(chunk)] = chunk
        position += len(chunk)
    copies.count("request body", size)
    return Body(view[:length], view[length:], block, begin + length)
