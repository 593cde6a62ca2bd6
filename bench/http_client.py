"""A lean HTTP/1.1 client for the load generator: one keep-alive connection, one request in flight."""

import itertools
import re
import socket
from collections.abc import Sequence
from time import perf_counter
from typing import Any

import numpy as np
import tritonclient.http as tritonclient

from bench.connection import BUFFER

CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


def infer_request(
    model: str, data: np.ndarray, tensor: str = "INPUT0", answer: str = "OUTPUT0", **options: Any
) -> bytes:
    """The whole request, as tritonclient makes it: binary tensors in both directions. `options` are tritonclient's."""
    given = tritonclient.InferInput(tensor, list(data.shape), "FP32")
    given.set_data_from_numpy(data)
    outputs = [tritonclient.InferRequestedOutput(answer, binary_data=True)]
    body, json_size = tritonclient.InferenceServerClient.generate_request_body([given], outputs=outputs, **options)
    head = (
        f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        f"Content-Type: application/octet-stream\r\nInference-Header-Content-Length: {json_size}\r\n\r\n"
    )
    return head.encode() + bytes(body)


class HttpConnection:
    """Sends `requests` in turn, again and again; an answer with fewer than `least` bytes of body is an error."""

    def __init__(self, connected: socket.socket, requests: Sequence[bytes], least: int) -> None:
        self.socket = connected
        self.is_stopping = False
        self.in_flight = 0
        self._requests = itertools.cycle([memoryview(request) for request in requests])
        self._least = least
        self._unsent = memoryview(b"")
        self._head = b""
        self._missing = -1  # bytes of the body that are still to come; -1 before its head is complete
        self._began = 0.0

    @property
    def wants_to_write(self) -> bool:
        return len(self._unsent) > 0

    def start(self) -> None:
        self.in_flight = 1
        self._began = perf_counter()
        self._unsent = next(self._requests)
        self.write()

    def write(self) -> None:
        try:
            while self._unsent:
                self._unsent = self._unsent[self.socket.send(self._unsent) :]
        except BlockingIOError:
            return

    def read(self) -> list[float]:
        size = self.socket.recv_into(BUFFER)
        if size == 0:
            raise RuntimeError("the server closed an HTTP connection")
        if self._missing >= 0:
            self._missing -= size
        else:
            self._head += BUFFER[:size]
            head, separator, body = self._head.partition(b"\r\n\r\n")
            if not separator:
                return []
            self._missing = self._body_size(head, body) - len(body)
            self._head = b""
        if self._missing:
            return []
        latency = perf_counter() - self._began
        self._missing = -1
        self.in_flight = 0
        if not self.is_stopping:
            self.start()
        return [latency]

    def _body_size(self, head: bytes, body: bytes) -> int:
        """The body's size by its head; RuntimeError unless it can be a good answer."""
        length = CONTENT_LENGTH.search(head)
        if not head.startswith(b"HTTP/1.1 200 ") or length is None or int(length[1]) < self._least:
            raise RuntimeError(f"not an answer to an inference request: {head.decode()} {body[:500]!r}")
        return int(length[1])
