"""The short way for small inference requests: from the bytes of a connection to the fabric and back, without a task.

It takes only what is plain: an HTTP/1.1 POST to an infer route with a Content-Length, whole and small, that can be read
without an error and asks for nothing special. Everything else goes through aiohttp on the same connection, as do
requests that are wrong in any way, so that there is one place for errors. Clients repeat themselves: the heads and JSON
parts that were met before are not read again.
"""

import re
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, NamedTuple, TypeAlias

from broker.client import Client
from broker.messages import Infer, Part, Response
from frontends.errors import HTTP_STATUS, RequestError
from frontends.http.codec import Input, Reply, Request, decode_request, encode_response
from frontends.http.documents import parse
from frontends.http.infer import ENDPOINT, infer
from frontends.http.outputs import take_outputs
from frontends.http.replies import error_document
from frontends.http.routes import resolve
from frontends.versions import parse_version
from shm.arena import INLINE, ArenaFull, Block, Buffer, inline
from shm.ref import TensorRef

MAX_HEAD = 8 * 1024
MAX_BODY = 64 * 1024
CACHED = 1024
"""Heads, JSON parts and response heads that are remembered, each."""
CACHED_TEXT = 2048
"""Bytes of the longest JSON part that is remembered."""

_TRACED = Part.TRACED.value
_LENGTH = "inference-header-content-length"
_PLAIN_HEADERS = frozenset({"host", "user-agent", "content-type", "content-length", "accept", "connection", _LENGTH})
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?)?[ \t]*")
_DIGITS = re.compile(r"[0-9]{1,9}")


class Head(NamedTuple):
    """What the head of a plain request says. `json_size` None: the whole body is JSON."""

    size: int
    model: str
    version: int
    body_size: int
    json_size: int | None


class Slice(NamedTuple):
    """An input whose bytes are `size` bytes from `start` of the binary section."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    start: int
    size: int


class Plain(NamedTuple):
    """A request that could be read: its inputs are those of `request`, and `slices` of `binary`."""

    head: Head
    request: Request
    slices: tuple[Slice, ...]
    binary: memoryview


Send: TypeAlias = Callable[[bytes], None]


class FastPath:
    """Reads plain requests and sends them on. One for each process; it keeps what it has read."""

    def __init__(self, client: Client, max_input_byte_size: int) -> None:
        """Nothing is known yet."""
        self._client = client
        self._limit = max_input_byte_size
        self._heads: dict[bytes, Head | None] = {}
        self._requests: dict[tuple[bytes, int], tuple[Request, tuple[Slice, ...]]] = {}
        self._replies: dict[tuple[Any, ...], bytes] = {}

    def head_of(self, data: bytes) -> Head | None:
        """The head that these bytes begin with, if they begin with a plain request's; its body may be incomplete."""
        if not data.startswith(b"POST /v2/models/"):
            return None
        end = data.find(b"\r\n\r\n", 0, MAX_HEAD)
        if end < 0:
            return None
        text = data[: end + 4]
        if text not in self._heads:
            _remember(self._heads, text, read_head(text))
        return self._heads[text]

    def read(self, head: Head, data: bytes) -> Plain | None:
        """A whole request, None when it is not plain after all (or wrong)."""
        body = memoryview(data)[head.size : head.size + head.body_size]
        split = head.body_size if head.json_size is None else head.json_size
        text, binary = bytes(body[:split]), body[split:]
        key = (text, len(binary))
        known = self._requests.get(key)
        if known is not None:
            return Plain(head, *known, binary)
        try:
            request = decode_request(parse(text), binary, head.model, self._limit)
        except RequestError:
            return None
        if request.selection.has_classes or request.selection.targets:
            return None
        slices = []
        for given in request.inputs:
            if isinstance(given, TensorRef):
                return None
            if given.start >= 0:
                slices.append(Slice(given.name, given.datatype, given.shape, given.start, len(given.data)))
        if len(slices) < len(request.inputs):
            return Plain(head, request, (), binary)
        known = request._replace(inputs=[]), tuple(slices)
        if len(text) <= CACHED_TEXT:
            _remember(self._requests, key, known)
        return Plain(head, *known, binary)

    def send(self, plain: Plain, received: float, reply: Send) -> int | None:
        """Send a request; `reply` gets the whole HTTP response. The request's number, None when there is no room."""
        blocks: list[Block] = []
        try:
            inputs = tuple([self._store(plain.head.model, *tensor, blocks) for tensor in _tensors(plain)])
        except ArenaFull:
            self._client.release(blocks)
            return None
        number = self._client.number()
        self._client.submit(_question(plain, number, inputs, received), blocks, _Receiver(self, plain.request, reply))
        return number

    def answer(self, request: Request, response: Response) -> bytes:
        """The HTTP response to a request."""
        try:
            outputs = take_outputs(self._client, response)
            return self._encoded(request, response, outputs)
        except RequestError as error:
            return _http(HTTP_STATUS[error.code], {}, [error_document(error.message)])

    def send_traced(self, request: Request, response: Response, reply: Send) -> None:
        """Send the response to a request whose trace wants to know when that was."""
        answer = self.answer(request, response)
        began = time.monotonic_ns()
        reply(answer)
        self._client.delivered(response, began)

    def _store(  # a tensor's parts
        self, model: str, name: str, datatype: str, shape: tuple[int, ...], data: Buffer, blocks: list[Block]
    ) -> TensorRef:
        if len(data) <= INLINE:
            return inline(name, datatype, shape, data)
        block = self._client.arena(model).allocate(len(data))
        blocks.append(block)
        return block.store(name, datatype, shape, data)

    def _encoded(self, request: Request, response: Response, outputs: list[bytes]) -> bytes:
        """All but the outputs' bytes is the same for like requests with like answers."""
        selection = request.selection
        if response.parameters or not all(selection.of(ref.name).is_binary for ref in response.outputs):
            return _written(encode_response(response, outputs, request.request_id, selection, None))
        shapes = tuple([(ref.name, ref.datatype, ref.shape, ref.byte_size) for ref in response.outputs])
        key = (response.model, response.version, request.request_id, shapes)
        head = self._replies.get(key)
        if head is None:
            whole = _written(encode_response(response, outputs, request.request_id, selection, None))
            head = whole[: len(whole) - sum(map(len, outputs))]
            if not request.request_id:
                _remember(self._replies, key, head)
        return b"".join((head, *outputs))


class _Receiver:
    """Takes the response of one request; see `broker.client.Receiver`."""

    __slots__ = ("_fast", "_reply", "_request")

    def __init__(self, fast: FastPath, request: Request, reply: Send) -> None:
        self._fast = fast
        self._request = request
        self._reply = reply

    def done(self) -> bool:
        return False

    def set_result(self, response: Response) -> None:
        if response.part & _TRACED:
            self._fast.send_traced(self._request, response, self._reply)
        else:
            self._reply(self._fast.answer(self._request, response))

    def set_exception(self, error: BaseException) -> None:
        self._reply(_http(500, {}, [error_document(f"{type(error).__name__}: {error}")]))


def read_head(text: bytes) -> Head | None:
    """What the head of a request says, None when it is not plain. `text` ends with the empty line."""
    first, *lines = text[:-4].decode("latin-1").split("\r\n")
    method, _, rest = first.partition(" ")
    path, _, protocol = rest.rpartition(" ")
    target = resolve(path)
    if method != "POST" or protocol != "HTTP/1.1" or target is None or target.route.handlers.get(method) is not infer:
        return None
    headers: dict[str, str] = {}
    for line in lines:
        match = _HEADER.fullmatch(line)
        if match is None or match[1].lower() in headers or match[1].lower() not in _PLAIN_HEADERS:
            return None
        headers[match[1].lower()] = match[2] or ""
    return _head(len(text), target.names, headers)


def _head(size: int, names: Mapping[str, str], headers: Mapping[str, str]) -> Head | None:
    body, json = headers.get("content-length", ""), headers.get(_LENGTH)
    if "host" not in headers or headers.get("connection", "keep-alive").lower() != "keep-alive":
        return None
    if not _DIGITS.fullmatch(body) or not 0 < int(body) <= MAX_BODY:
        return None
    if json is not None and (not _DIGITS.fullmatch(json) or not 0 < int(json) <= int(body)):
        return None
    try:
        version = parse_version(names.get("version") or "")
    except RequestError:
        return None
    return Head(size, names["model"], version, int(body), None if json is None else int(json))


def _question(plain: Plain, number: int, inputs: tuple[TensorRef, ...], received: float) -> Infer:
    request, parameters = plain.request, plain.request.parameters
    return Infer(
        number,
        plain.head.model,
        plain.head.version,
        request.request_id,
        inputs,
        tuple(request.selection.listed),
        parameters.custom,
        parameters.correlation_id,
        parameters.flags,
        parameters.priority,
        parameters.timeout_us,
        False,
        received,
        ENDPOINT,
    )


def _tensors(plain: Plain) -> list[tuple[str, str, tuple[int, ...], Buffer]]:
    """Name, datatype, shape and bytes of each input."""
    if plain.slices:
        return [(s.name, s.datatype, s.shape, plain.binary[s.start : s.start + s.size]) for s in plain.slices]
    return [given[:4] for given in plain.request.inputs if isinstance(given, Input)]


def _written(reply: Reply) -> bytes:
    blobs = [blob for blob in reply.blobs if blob]
    headers = {"Inference-Header-Content-Length": str(len(reply.text))} if blobs else {}
    return _http(200, headers, [reply.text, *blobs])


def _http(status: int, headers: Mapping[str, str], parts: list[bytes]) -> bytes:
    kind = "application/octet-stream" if headers else "application/json"
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", f"Content-Type: {kind}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines.append(f"Content-Length: {sum(map(len, parts))}")
    return b"".join(["\r\n".join(lines).encode(), b"\r\n\r\n", *parts])


def _remember(cache: dict[Any, Any], key: Any, value: Any) -> None:
    if len(cache) >= CACHED:
        cache.clear()
    cache[key] = value
