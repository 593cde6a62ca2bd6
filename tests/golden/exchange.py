"""Sends the steps of a scenario to a server and gives the answers a form that can be kept and compared.

An HTTP answer is `{"status", "headers", ...}` with the body as `json` and `binary` (hex), `events` (of a stream),
`text` or `base64`; a gRPC answer is `{"code", "details", "messages"}`. Compressed bodies are kept plain.
"""

import base64
import contextlib
import http.client
import io
import json
import mmap
import os
import socket
import time
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import grpc
from google.protobuf.descriptor_pool import Default
from google.protobuf.json_format import MessageToDict
from google.protobuf.message_factory import GetMessageClass
from tritonclient.grpc import service_pb2

from tests.golden.scenario import Answer, Grpc, Http, Memory, Pause, Settle, Step

SECONDS = 15.0
"""How long a server may take for one answer."""
SILENCE_SECONDS = 1.5
"""After so long without a byte, an answer that another one came before on the connection will not come."""
HEADERS = ("content-type", "inference-header-content-length", "content-encoding", "accept-encoding")
"""The response headers that matter."""
HEALTH = "grpc.health.v1.Health"
MOVING = ("LOADING", "UNLOADING")
INFERENCE = service_pb2.DESCRIPTOR.package + ".GRPCInferenceService"
_PLACE = "golden-00000000-"
"""How keys of shared memory begin in recordings; a run puts a number of its own in, so that runs do not meet."""


class Exchange:
    """Runs scenarios against one server. Use as a context manager."""

    def __init__(self, addresses: Mapping[str, str]) -> None:
        """`addresses` is where it listens, `host:port` by role: `http`, `grpc`, `metrics`."""
        self._addresses = addresses
        self._key = f"golden-{os.getpid():08x}-"
        self._pool = ThreadPoolExecutor(8)
        options = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
        self._channel = grpc.insecure_channel(addresses["grpc"], options=options)

    def __enter__(self) -> "Exchange":
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()
        self._pool.shutdown()

    def run(self, steps: tuple[Step, ...]) -> list[Answer]:
        """The answer to each step; None for steps that have none."""
        pending: list[Future[Answer] | Answer] = []
        with self._objects(steps):
            for step in steps:
                is_background = isinstance(step, Http | Grpc) and step.is_background
                pending.append(self._pool.submit(self._take, step) if is_background else self._take(step))
            return [each.result() if isinstance(each, Future) else each for each in pending]

    def _take(self, step: Step) -> Answer:
        match step:
            case Http(parts, _, port):
                answers = http_answers(self._addresses[port], [self._placed(part) for part in parts])
                return answers if len(answers) > 1 else answers[0]
            case Grpc():
                answer = grpc_answer(self._channel, step._replace(requests=tuple(map(self._placed, step.requests))))
                if step.is_grouped:
                    answer["messages"].sort(key=lambda message: message["infer_response"].get("id", ""))
                return answer
            case Memory(action, key, data):
                return _memory(action, self._placed(key.encode()).decode(), data)
            case Pause(seconds):
                time.sleep(seconds)
            case Settle():
                _settle(self._addresses["http"])
        return None

    def _placed(self, data: bytes) -> bytes:
        return data.replace(_PLACE.encode(), self._key.encode())

    @contextlib.contextmanager
    def _objects(self, steps: tuple[Step, ...]) -> Iterator[None]:
        """Removes what a scenario leaves when it fails."""
        try:
            yield
        finally:
            for step in steps:
                if isinstance(step, Memory):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(_path(self._placed(step.key.encode()).decode()))


# ----------------------------------------------------------------------------------------------- HTTP


def http_answers(address: str, parts: list[bytes]) -> list[Answer]:
    """Send each part on one connection and read an answer after it; `None` where none comes."""
    host, _, port = address.rpartition(":")
    answers: list[Answer] = []
    with socket.create_connection((host, int(port)), timeout=SECONDS) as connection:
        source = Source(connection)
        for part in parts:
            try:
                connection.sendall(part)
                answers.append(read_answer(source, part.partition(b" ")[0].decode("latin-1")))
            except (OSError, http.client.HTTPException):
                answers.append(None)
            connection.settimeout(SILENCE_SECONDS)
    return answers


class Source(io.BufferedReader):
    """What a connection brings, for several HTTPResponses: none of them may close it or read ahead for itself."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(socket.SocketIO(connection, "r"))

    def makefile(self, _mode: str) -> "Source":
        return self

    def close(self) -> None:
        pass


def _settle(address: str) -> None:
    """Ask for the repository's index until every model is at rest."""
    deadline = time.monotonic() + SECONDS
    index = b"POST /v2/repository/index HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
    while any(entry.get("state") in MOVING for entry in http_answers(address, [index])[0]["json"]):
        if time.monotonic() > deadline:
            raise TimeoutError(f"models are still being loaded or unloaded after {SECONDS} s")
        time.sleep(0.05)


def read_answer(source: Any, method: str) -> Answer:
    """The next answer that a connection brings. Raises OSError and HTTPException when there is none."""
    response = http.client.HTTPResponse(source, method=method)
    try:
        response.begin()
        headers = {name: value for name in HEADERS if (value := response.getheader(name)) is not None}
        body = response.read()
        if "content-encoding" in headers:
            body = zlib.decompress(body, zlib.MAX_WBITS + 32)
        answer: dict[str, Any] = {"status": response.status, "headers": headers}
        return answer | _body_form(body, headers)
    finally:
        response.close()


def _body_form(body: bytes, headers: Mapping[str, str]) -> dict[str, Any]:
    if not body:
        return {}
    if headers.get("content-type", "").startswith("text/event-stream"):
        return {"events": [_document(line.removeprefix(b"data: ")) for line in body.split(b"\n\n") if line]}
    length = int(headers.get("inference-header-content-length", len(body)))
    form = _document(body[:length])
    return form | ({"binary": body[length:].hex()} if body[length:] else {})


def _document(text: bytes) -> dict[str, Any]:
    try:
        return {"json": json.loads(text)}
    except ValueError:
        pass
    try:
        return {"text": text.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(text).decode()}


# ----------------------------------------------------------------------------------------------- gRPC


def grpc_answer(channel: grpc.Channel, step: Grpc) -> Answer:
    """Make one call. Requests of a stream are sent at once, then the client's half is closed."""
    call: Any = channel.stream_stream if step.rpc.endswith("StreamInfer") else channel.unary_unary
    method = call(f"/{step.rpc}", request_serializer=bytes, response_deserializer=bytes)
    request: Any = iter(step.requests) if step.rpc.endswith("StreamInfer") else step.requests[0]
    messages: list[bytes] = []
    try:
        reply = method(request, timeout=SECONDS, metadata=step.metadata)
        if isinstance(reply, bytes):
            messages.append(reply)
        else:
            messages.extend(reply)
    except grpc.RpcError as error:
        return _grpc_form(step.rpc, error.code().name, error.details() or "", messages)
    return _grpc_form(step.rpc, "OK", "", messages)


def _grpc_form(rpc: str, code: str, details: str, messages: list[bytes]) -> Answer:
    form: dict[str, Any] = {"code": code}
    form |= {"details": details} if details else {}
    return form | ({"messages": [_message(rpc, each) for each in messages]} if messages else {})


def _message(rpc: str, data: bytes) -> dict[str, Any]:
    service, _, method = rpc.partition("/")
    if service != INFERENCE:
        return {"base64": base64.b64encode(data).decode()}
    output = Default().FindServiceByName(service).methods_by_name[method].output_type
    message = GetMessageClass(output).FromString(data)
    form: dict[str, Any] = MessageToDict(message, preserving_proto_field_name=True)
    response = form.get("infer_response", form)
    if "raw_output_contents" in response:
        response["raw_output_contents"] = [base64.b64decode(each).hex() for each in response["raw_output_contents"]]
    return form


# ----------------------------------------------------------------------------------------------- shared memory


def _path(key: str) -> str:
    return "/dev/shm/" + key.lstrip("/")


def _memory(action: str, key: str, data: bytes) -> Answer:
    path = _path(key)
    if action == "remove":
        os.unlink(path)
        return None
    if action == "read":
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as view:
            return {"binary": view[:].hex()}
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)
    return None
