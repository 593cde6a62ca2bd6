"""A lean gRPC client for the load generator: just the HTTP/2 that unary calls with a constant request need.

A gRPC library in Python would take more of the machine than the server that is measured. This one sends literal
headers, honours the server's flow control, opens its own windows wide and reads frame heads only: a call has
succeeded when enough bytes of DATA came before the trailers (an error has none).
"""

import itertools
import socket
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from tritonclient.grpc import service_pb2

from bench.connection import BUFFER

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
ACK = END_STREAM = 1
END_HEADERS = 4
INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 4, 5  # settings
DEFAULT_WINDOW, DEFAULT_FRAME, LARGEST_WINDOW = 65535, 16384, 2**31 - 1
METHOD = "/inference.GRPCInferenceService/ModelInfer"
QUEUE_SIZE = 1 << 20  # bytes of frames made ahead of what the socket takes
FRAMES_PER_SEND = 64


def infer_message(model: str, data: np.ndarray, **parameters: int | bool) -> bytes:
    """The request with gRPC's five-byte prefix, tensor data in `raw_input_contents`."""
    request = service_pb2.ModelInferRequest(model_name=model)
    for name, value in parameters.items():
        setattr(request.parameters[name], "bool_param" if isinstance(value, bool) else "int64_param", value)
    request.inputs.add(name="INPUT0", datatype="FP32", shape=data.shape)
    request.raw_input_contents.append(data.tobytes())
    message: bytes = request.SerializeToString()
    return b"\0" + len(message).to_bytes(4) + message


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One HTTP/2 frame."""
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


def literal(name: bytes, value: bytes) -> bytes:
    """A header field without compression; `name` is an encoded index or name."""
    return name + bytes((len(value),)) + value


HEADER_BLOCK = (
    b"\x83\x86"  # :method POST, :scheme http
    + literal(b"\x04", METHOD.encode())
    + literal(b"\x01", b"localhost")  # :authority
    + literal(b"\x0f\x10", b"application/grpc")  # content-type
    + literal(b"\x00\x02te", b"trailers")
)


@dataclass(slots=True)
class Call:
    """One stream: what is left to send, how much the server lets us send, and what came back."""

    began: float
    unsent: memoryview
    window: int
    received: int = 0


class GrpcConnection:
    """Keeps `streams` calls in flight, with `messages` in turn; an answer with fewer than `least` bytes is an error."""

    def __init__(self, connected: socket.socket, messages: Sequence[bytes], least: int, streams: int) -> None:
        self.socket = connected
        self.is_stopping = False
        self._messages = itertools.cycle([memoryview(message) for message in messages])
        self._least = least
        self._concurrency = streams
        self._calls: dict[int, Call] = {}
        self._next_stream = 1
        self._sending: deque[int] = deque()  # streams with something left to send
        self._output: deque[bytes | memoryview] = deque()
        self._output_size = 0
        self._window = self._initial_window = DEFAULT_WINDOW
        self._frame_size = DEFAULT_FRAME
        self._leftover = b""  # an incomplete frame
        self._skip = 0  # bytes of DATA that are still to come
        self._consumed = 0

    @property
    def in_flight(self) -> int:
        return len(self._calls)

    @property
    def wants_to_write(self) -> bool:
        return len(self._output) > 0

    def start(self) -> None:
        self._queue(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        wide_open = INITIAL_WINDOW_SIZE.to_bytes(2) + LARGEST_WINDOW.to_bytes(4)
        self._queue(frame(SETTINGS, 0, 0, wide_open))
        self._queue(frame(WINDOW_UPDATE, 0, 0, (LARGEST_WINDOW - DEFAULT_WINDOW).to_bytes(4)))
        for _ in range(self._concurrency):
            self._call()
        self.write()

    def write(self) -> None:
        try:
            while self._fill_output():
                sent = self.socket.sendmsg(list(self._output)[:FRAMES_PER_SEND])
                self._drop(sent)
        except BlockingIOError:
            return

    def read(self) -> list[float]:
        size = self.socket.recv_into(BUFFER)
        if size == 0:
            raise RuntimeError("the server closed a gRPC connection")
        answered = self._parse(BUFFER[:size])
        if not self.is_stopping:
            for _ in answered:
                self._call()
        self.write()
        return answered

    def _call(self) -> None:
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        self._calls[stream] = Call(perf_counter(), next(self._messages), self._initial_window)
        self._queue(frame(HEADERS, END_HEADERS, stream, HEADER_BLOCK))
        self._sending.append(stream)

    def _queue(self, data: bytes | memoryview) -> None:
        self._output.append(data)
        self._output_size += len(data)

    def _drop(self, sent: int) -> None:
        """Forgets what has left."""
        self._output_size -= sent
        while sent:
            first = self._output[0]
            if sent < len(first):
                self._output[0] = memoryview(first)[sent:]
                return
            sent -= len(first)
            self._output.popleft()

    def _fill_output(self) -> bool:
        """Makes DATA frames, one call after the other in turn, as far as the windows allow; False: none to send."""
        blocked: list[int] = []
        while self._sending and self._output_size < QUEUE_SIZE and self._window > 0:
            stream = self._sending.popleft()
            call = self._calls[stream]
            size = min(len(call.unsent), self._frame_size, self._window, call.window)
            if size <= 0:
                blocked.append(stream)
                continue
            is_last = size == len(call.unsent)
            head = size.to_bytes(3) + bytes((DATA, END_STREAM if is_last else 0)) + stream.to_bytes(4)
            self._queue(head)
            self._queue(call.unsent[:size])
            call.unsent = call.unsent[size:]
            call.window -= size
            self._window -= size
            if not is_last:
                self._sending.append(stream)
        self._sending.extend(blocked)
        return len(self._output) > 0

    def _parse(self, data: memoryview) -> list[float]:
        """Goes through the frames; the latencies of the calls that they complete."""
        answered = []
        if self._leftover:
            data = memoryview(self._leftover + data)
        while True:
            skipped = min(self._skip, len(data))
            self._skip -= skipped
            data = data[skipped:]
            if len(data) < 9:
                break
            size, kind, flags = int.from_bytes(data[:3]), data[3], data[4]
            stream = int.from_bytes(data[5:9]) & 0x7FFFFFFF
            if kind == DATA:
                self._calls[stream].received += size
                self._consume(size)
                self._skip = size
                data = data[9:]
                continue
            if len(data) < 9 + size:
                break
            payload = bytes(data[9 : 9 + size])
            data = data[9 + size :]
            if kind == HEADERS and flags & END_STREAM:
                answered.append(self._finish(stream, payload))
            else:
                self._control(kind, flags, stream, payload)
        self._leftover = bytes(data)
        return answered

    def _finish(self, stream: int, trailers: bytes) -> float:
        call = self._calls.pop(stream)
        if call.received < self._least:
            raise RuntimeError(f"a gRPC call failed: {call.received} bytes of data and trailers {trailers!r}")
        return perf_counter() - call.began

    def _consume(self, size: int) -> None:
        """Opens the connection's window again before it is used up."""
        self._consumed += size
        if self._consumed > LARGEST_WINDOW // 2:
            self._queue(frame(WINDOW_UPDATE, 0, 0, self._consumed.to_bytes(4)))
            self._consumed = 0

    def _control(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == SETTINGS and not flags & ACK:
            self._apply_settings(payload)
            self._queue(frame(SETTINGS, ACK, 0))
        elif kind == PING and not flags & ACK:
            self._queue(frame(PING, ACK, 0, payload))
        elif kind == WINDOW_UPDATE and stream == 0:
            self._window += int.from_bytes(payload)
        elif kind == WINDOW_UPDATE and stream in self._calls:
            self._calls[stream].window += int.from_bytes(payload)
        elif kind in (RST_STREAM, GOAWAY):
            raise RuntimeError(f"the server ended a gRPC call or connection: {payload!r}")

    def _apply_settings(self, payload: bytes) -> None:
        for position in range(0, len(payload), 6):
            key = int.from_bytes(payload[position : position + 2])
            value = int.from_bytes(payload[position + 2 : position + 6])
            if key == MAX_FRAME_SIZE:
                self._frame_size = value
            elif key == INITIAL_WINDOW_SIZE:
                for call in self._calls.values():
                    call.window += value - self._initial_window
                self._initial_window = value
