"""HTTP requests to a frontend, one connection for each, without a client library's help or hindrance."""

import contextlib
import json
import socket
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse
from typing import Any, NamedTuple

from tests.support.fake_broker import SECONDS

LENGTH = "Inference-Header-Content-Length"


class Answer(NamedTuple):
    """A whole response."""

    status: int
    reason: str
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> Any:
        return self.json["error"]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@contextlib.contextmanager
def sending(address: str, method: str, path: str, body: Any = None, **headers: str) -> Iterator[HTTPConnection]:
    """A connection on which this request was sent. `_` in the names of headers stands for `-`."""
    with contextlib.closing(HTTPConnection(address, timeout=SECONDS)) as connection:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, names, encode_chunked="Transfer-Encoding" in names)
        yield connection


def ask(address: str, method: str, path: str, body: Any = None, **headers: str) -> Answer:
    """Send a request; dicts and lists are sent as JSON."""
    if isinstance(body, dict | list):
        body = json.dumps(body)
    with sending(address, method, path, body, **headers) as connection:
        response = connection.getresponse()
        return Answer(response.status, response.reason, dict(response.getheaders()), response.read())


def exchange(address: str, data: bytes, end: bytes = b"") -> bytes:
    """Send bytes and read until the server closes, or until what was read ends with `end`."""
    host, _, port = address.partition(":")
    received = b""
    with socket.create_connection((host, int(port)), SECONDS) as connection:
        connection.sendall(data)
        while not (end and received.endswith(end)):
            piece = connection.recv(65536)
            if not piece:
                break
            received += piece
    return received


def framed(shape: list[int], data: bytes, **more: Any) -> tuple[bytes, str]:
    """A body with one binary FP32 input `X`, and the length of its JSON."""
    entry = {"name": "X", "datatype": "FP32", "shape": shape, "parameters": {"binary_data_size": len(data)}}
    text = json.dumps({"inputs": [entry], "parameters": {"binary_data_output": True}, **more}).encode()
    return text + data, str(len(text))


def next_event(response: HTTPResponse) -> Any:
    """The JSON of the next server-sent event."""
    text = response.readline()
    assert response.readline() == b"\n"
    return json.loads(text.removeprefix(b"data: "))
