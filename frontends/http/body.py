"""Reading the body of an inference request: small ones into memory, large binary ones straight into a block."""

import asyncio
from collections.abc import AsyncIterator
from typing import NamedTuple

from aiohttp import hdrs, web

from broker.messages import ErrorCode
from frontends.errors import RequestError
from frontends.http.call import Call
from frontends.http.compression import decompress, is_compressed
from shm import copies
from shm.arena import Block, Buffer

SMALL = 64 * 1024
"""Bodies of up to this many bytes are read into memory."""
ALIGNMENT = 64
"""The binary section begins at a multiple of this, for the vector instructions that read it."""
GROWN = 256 * 1024
"""Bytes to begin with for a large body whose size is not known."""
MAX_CHUNKS = 65536
"""Non-empty chunks of one body: each costs as much as a read."""
ROOM = 4
"""Bytes before the data of a raw request, for the length that a BYTES element needs."""

_LIMIT_ADVICE = "Use --http-max-input-size to increase the limit."


class FramingError(RequestError):
    """The rest of the body will not be read: the connection has to end."""


class Body(NamedTuple):
    """A request's JSON `text`, empty for a raw request, and its `binary` section.

    Where the section lies in shared memory already, that is at `start` of `block`, with ROOM before it.
    """

    text: Buffer
    binary: Buffer
    block: Block | None = None
    start: int = 0


async def receive_text(request: web.BaseRequest, limit: int) -> Buffer:
    """A body that is one JSON document, of at most `limit` bytes. Raises RequestError."""
    _invite(request)
    return await _collect(request, limit)


async def receive(call: Call, blocks: list[Block]) -> Body:
    """Read the body; a block that it needs is added to `blocks`. Raises RequestError, ArenaFull.

    The limit of the options is that of JSON, of a raw request and of a decompressed body.
    """
    request, limit = call.request, call.options.max_input_byte_size
    encoding = request.headers.get(hdrs.CONTENT_ENCODING)
    compressed = encoding is not None and is_compressed(encoding)
    length = call.options.framing.length(request.headers)
    _invite(request)
    if compressed:
        packed = await _collect(request, limit)
        return _split(await asyncio.to_thread(decompress, packed, limit), length, limit)
    size = request.content_length
    if length is None:
        return _split(await _collect(request, limit), None, limit)
    if size is not None and size <= SMALL:
        return _split(await _collect(request, None), length, limit)
    if size is not None:
        _check_length(length, size, limit)
    return await _receive_into_block(call, length, blocks)


def _invite(request: web.BaseRequest) -> None:
    """Tell a client that waits for it to send the body."""
    if request.headers.get(hdrs.EXPECT, "").lower() == "100-continue" and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


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


async def _pieces(request: web.BaseRequest) -> AsyncIterator[bytes]:
    """The body as it arrives. Raises FramingError."""
    chunks = 0
    while True:
        piece, ends_chunk = await request.content.readchunk()
        chunks += ends_chunk
        if chunks > MAX_CHUNKS:
            raise FramingError(
                ErrorCode.INVALID_ARG,
                f"Chunked request body exceeds maximum of {MAX_CHUNKS} non-empty chunks. "
                "Send fewer or larger HTTP chunks.",
            )
        if piece:
            yield piece
        elif not ends_chunk or request.content.at_eof():  # aiohttp's reader of no body repeats itself
            return


async def _collect(request: web.BaseRequest, limit: int | None) -> Buffer:
    """The whole body in memory, of which at most `limit` bytes can be of use."""
    size = request.content_length
    if size is not None and request.content.is_eof():  # it came with the headers
        return request.content.read_nowait()
    if limit is not None:
        _check_length(None, size or 0, limit)
    data = bytearray()
    async for piece in _pieces(request):
        data += piece
        if limit is not None:
            _check_length(None, len(data), limit)
    return data


async def _receive_into_block(call: Call, length: int, blocks: list[Block]) -> Body:
    """A body into a block of its size, or of a size that grows with it where it comes in chunks."""
    size, limit = call.request.content_length, call.options.max_input_byte_size
    begin = -length % ALIGNMENT if length else ALIGNMENT
    block = await call.client.allocate(call.model, begin + (size or GROWN))
    blocks.append(block)
    position = 0
    async for piece in _pieces(call.request):
        end = position + len(piece)
        if size is None:
            if length == 0:
                _check_length(length, end, limit)
            if begin + end > block.size:
                block = await _enlarged(block, call, begin + 2 * end, blocks)
        block.view(begin + position, len(piece))[:] = piece
        position = end
    if position < (size or 0):
        raise RequestError(ErrorCode.INVALID_ARG, f"the body ends after {position} of {size} bytes")
    _check_length(length, position, limit)
    copies.count("request body", position)
    view = block.view(begin, position)
    return Body(view[:length], view[length:], block, begin + length)


async def _enlarged(block: Block, call: Call, size: int, blocks: list[Block]) -> Block:
    """A block of `size` bytes with what is in `block`, in its place among `blocks`."""
    larger = await call.client.allocate(call.model, size)
    larger.view(0, block.size)[:] = block.view(0, block.size)
    copies.count("grown body", block.size)
    blocks[blocks.index(block)] = larger
    call.client.release([block])
    return larger
