"""The fuzz targets. Each sends bad inputs until its budget is spent and fails when an answer is none of ours.

An answer is ours when its status is one of the protocol's and its text was made for clients: an exception that
nobody expected shows as `TypeError: ...`.
"""

import contextlib
import http.client
import json
import os
import random
import re
import select
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import grpc

from configs.errors import ConfigError
from configs.model import describe
from configs.server import load
from configs.settings import OPTIONS
from tests.fuzz import grpc_inputs, http_inputs, mutate
from tests.fuzz.corpus import model_configs, server_configs
from tests.fuzz.tally import Tally
from tests.golden.exchange import SECONDS, Source

STATUSES = {200, 400, 403, 404, 405, 500, 501, 503}
CODES = {
    *("OK", "UNKNOWN", "INTERNAL", "NOT_FOUND", "INVALID_ARGUMENT", "UNAVAILABLE", "UNIMPLEMENTED", "ALREADY_EXISTS"),
    *("CANCELLED", "RESOURCE_EXHAUSTED"),
}
UNEXPECTED = re.compile(r"\w*(Error|Exception): |Unexpected <class|Traceback")
"""How texts begin that were made for nobody."""
CLIENTS = 12
"""Connections at a time, where each has to wait for silence."""
SILENCE_SECONDS = 0.3
SLOW_CLIENTS = 8
SLOW_BYTE_SECONDS = 0.2


class Budget(NamedTuple):
    """When a target has had enough: so many different inputs, or so many seconds."""

    inputs: int
    seconds: float
    seed: int

    def turns(self, tally: Tally) -> Iterator[random.Random]:
        """A source of chance for each turn."""
        rng = random.Random(f"{self.seed} {tally.target}")
        end = time.monotonic() + self.seconds
        while tally.inputs < self.inputs and time.monotonic() < end:
            yield rng


# ----------------------------------------------------------------------------------------------- HTTP


def http_documents(address: str, budget: Budget) -> Tally:
    """Well-framed requests with something wrong inside, one after the other on connections that are kept."""
    tally = Tally("http documents")
    client = HttpClient(address)
    for rng in budget.turns(tally):
        data = http_inputs.document(rng)
        tally.add(data)
        tally.heard(client.ask(data))
        if data.startswith(b"POST /v2/logging"):
            client.ask(http_inputs.restore_log(rng))
    client.close()
    return tally


class HttpClient:
    """A connection that is made anew when the server closes it."""

    def __init__(self, address: str) -> None:
        """Nothing is connected yet."""
        self._address = address
        self._connection: socket.socket | None = None

    def ask(self, data: bytes) -> str:
        """Status and text of the answer, which has to be ours."""
        if self._connection is None or select.select([self._connection], [], [], 0)[0]:
            self.close()
            self._connection = connect(self._address)
            self._source = Source(self._connection)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it answers before it has read everything
            self._connection.sendall(data)
        try:
            answer, is_last = read_http(self._source, data)
        except (OSError, http.client.HTTPException) as problem:
            raise AssertionError(f"{problem!r} instead of an answer to {data[:2000]!r}") from problem
        if is_last:
            self.close()
        return answer

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def read_http(source: Source, data: bytes) -> tuple[str, bool]:
    """The next answer, `status text`, which has to be ours, and whether the server closes the connection after it."""
    response = http.client.HTTPResponse(source, method=data.partition(b" ")[0].decode("latin-1"))  # type: ignore[arg-type]  # has makefile
    response.begin()
    body = response.read()
    answer = f"{response.status} {_text(body)}"
    assert response.status in STATUSES, f"{answer} to {data[:2000]!r}"
    assert not UNEXPECTED.match(_text(body)), f"{answer} to {data[:2000]!r}"
    return answer, response.will_close


def _text(body: bytes) -> str:
    """The error of an answer; empty for what is none."""
    for line in body.removeprefix(b"data: ").split(b"\n\n"):
        with contextlib.suppress(ValueError, TypeError, KeyError):
            return str(json.loads(line)["error"])
    return ""


def connect(address: str) -> socket.socket:
    """A connection."""
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=SECONDS)


def http_framing(address: str, budget: Budget) -> Tally:
    """Hardly HTTP: each input on a connection of its own, many at a time, beside clients that are slow."""
    tally = Tally("http framing")

    def send(data: bytes, is_half_closed: bool) -> str:
        with connect(address) as connection, contextlib.suppress(ConnectionError):
            connection.sendall(data)
            if is_half_closed:
                connection.shutdown(socket.SHUT_WR)
            return "\n".join(_answers(connection, data))
        return "reset"

    with slow_clients(address):
        in_parallel(tally, budget, lambda rng: (http_inputs.broken(rng), rng.random() < 0.7), send)
    return tally


def _answers(connection: socket.socket, data: bytes) -> Iterator[str]:
    """All answers that come before silence or the end; each has to be ours."""
    connection.settimeout(SILENCE_SECONDS)
    source = Source(connection)
    try:
        while source.peek(1):
            connection.settimeout(SECONDS)
            answer, is_last = read_http(source, b"GET" if data.startswith(b"\r\n") else data)
            yield answer
            if is_last:
                return
            connection.settimeout(SILENCE_SECONDS)
    except (TimeoutError, ConnectionError):
        yield "silence"
    except (http.client.IncompleteRead, http.client.RemoteDisconnected):
        yield "end"
    except http.client.HTTPException as problem:
        raise AssertionError(f"{problem!r} is no HTTP, to {data[:2000]!r}") from problem


def in_parallel(
    tally: Tally,
    budget: Budget,
    make: Callable[[random.Random], tuple[bytes, bool]],
    send: Callable[[bytes, bool], str],
) -> None:
    """Send inputs from several threads; `send` returns what was heard."""
    with ThreadPoolExecutor(CLIENTS) as pool:
        turns = budget.turns(tally)
        while batch := [make(rng) for rng, _ in zip(turns, range(CLIENTS * 4), strict=False)]:
            for data, _ in batch:
                tally.add(data)
            for heard in pool.map(send, *zip(*batch, strict=True)):
                tally.heard(heard)


@contextlib.contextmanager
def slow_clients(address: str) -> Iterator[None]:
    """Clients that send a byte now and then, and never finish."""
    request = b"POST /v2/models/add_sub/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n{" + b" " * 1000
    with ThreadPoolExecutor(1) as pool, contextlib.ExitStack() as stack:
        connections = [stack.enter_context(connect(address)) for _ in range(SLOW_CLIENTS)]
        is_over: list[bool] = []

        def drip() -> None:
            for position in range(len(request)):
                for connection in connections:
                    with contextlib.suppress(OSError):
                        connection.sendall(request[position : position + 1])
                if is_over:
                    return
                time.sleep(SLOW_BYTE_SECONDS)

        dripping = pool.submit(drip)
        try:
            yield
        finally:
            is_over.append(True)
            dripping.result()


# ----------------------------------------------------------------------------------------------- gRPC


def grpc_messages(address: str, budget: Budget) -> Tally:
    """Changed messages for every RPC."""
    tally = Tally("grpc messages")
    options = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(address, options=options) as channel:
        for rng in budget.turns(tally):
            rpc, messages = grpc_inputs.call(rng)
            tally.add(rpc.encode() + b"\0".join(messages))
            tally.heard(_call(channel, rpc, messages))
            if rpc.endswith("/LogSettings"):
                _call(channel, *grpc_inputs.restore_log())
    return tally


def _call(channel: grpc.Channel, rpc: str, messages: list[bytes]) -> str:
    """Code and text of the answer, which has to be ours."""
    is_stream = rpc.endswith("StreamInfer")
    make: Any = channel.stream_stream if is_stream else channel.unary_unary
    method = make(f"/{rpc}", request_serializer=bytes, response_deserializer=bytes)
    code, details = "OK", ""
    try:
        reply = method(iter(messages) if is_stream else messages[0], timeout=SECONDS)
        if is_stream:
            list(reply)
    except grpc.RpcError as error:
        code, details = error.code().name, error.details() or ""
    assert code in CODES, f"{code} {details} from {rpc}, to {messages!r:.2000}"
    assert not UNEXPECTED.match(details), f"{code} {details} from {rpc}, to {messages!r:.2000}"
    return f"{code} {details}"


def grpc_frames(address: str, budget: Budget) -> Tally:
    """Broken HTTP/2, each input on a connection of its own."""
    tally = Tally("grpc frames")

    def send(data: bytes, is_half_closed: bool) -> str:
        with connect(address) as connection, contextlib.suppress(ConnectionError):
            connection.sendall(data)
            if is_half_closed:
                connection.shutdown(socket.SHUT_WR)
            return _frames(connection)
        return "reset"

    in_parallel(tally, budget, lambda rng: (grpc_inputs.connection(rng), rng.random() < 0.8), send)
    return tally


def _frames(connection: socket.socket) -> str:
    """What came back before silence or the end: the kinds of the frames."""
    connection.settimeout(SILENCE_SECONDS)
    data = b""
    with contextlib.suppress(TimeoutError, ConnectionError):
        while (more := connection.recv(65536)) and len(data) < 1 << 20:
            data += more
    kinds, position = [], 0
    while position + 9 <= len(data):
        kinds.append(str(data[position + 3]))
        position += 9 + int.from_bytes(data[position : position + 3], "big")
    return " ".join(kinds)


# ----------------------------------------------------------------------------------------------- configuration

WORDS = (
    *(b"name", b"platform", b"backend", b"max_batch_size", b"input", b"output", b"dims", b"data_type", b"TYPE_FP32"),
    *(b"instance_group", b"count", b"kind", b"KIND_GPU", b"gpus", b"dynamic_batching", b"preferred_batch_size"),
    *(b"default_queue_policy", b"priority_levels", b"version_policy", b"specific", b"versions", b"reshape", b"shape"),
    *(
        b"parameters",
        b"key",
        b"value",
        b"string_value",
        b"label_filename",
        b"ensemble_scheduling",
        b"step",
        b"optional",
    ),
    *(
        b"model_transaction_policy",
        b"decoupled",
        b"true",
        b"false",
        b"{",
        b"}",
        b"[",
        b"]",
        b":",
        b",",
        b";",
        b"<",
        b">",
    ),
    *(
        b"#",
        b'"',
        b"'",
        b'"\\',
        b"\\x",
        b"0x",
        b"1e999",
        b"-",
        b"inf",
        b"nan",
        b"\n",
        b"\0",
        b"\xff",
        b"/* */",
        b"[a.b/c.D]",
    ),
    *(
        b'"../../x"',
        b'"/etc/passwd"',
        b'"\\377\\000"',
        b'"' + b"x" * 5000 + b'"',
        b"{" * 300,
        b"[" * 300,
        b"a { " * 300,
    ),
)
_WORD = re.compile(rb'"[^"\n]*"|[A-Za-z_]\w*|-?\d+|\S')


def text(rng: random.Random, seed: bytes, fields: Sequence[str] = ()) -> bytes:
    """Protobuf text with other words, or other bytes; sometimes with one of the `fields` at its end."""
    if fields and rng.random() < 0.3:
        value = rng.choice((*(b'"\\000"', b'"x\\377"', b'"."', b"true", b"7", b"-1", b"1.5", b'""'), rng.choice(WORDS)))
        return seed + b"\n" + rng.choice(fields).encode() + b": " + value
    if rng.random() < 0.2:
        return mutate.data(rng, seed)
    words = _WORD.findall(seed)
    for _ in range(rng.randrange(1, 5)):
        at = rng.randrange(len(words))
        number = str(rng.choice(mutate.NUMBERS)).encode()
        words[at : at + rng.choice((0, 1, 1, 1, 2))] = rng.choice(
            ([rng.choice(WORDS)], [number], [], words[at : at + 5])
        )
        words = words or [b""]
    return b" ".join(words)


def model_configurations(directory: Path, budget: Budget) -> Tally:
    """A config.pbtxt that is read by the server: described, or refused with a clear line."""
    tally = Tally("config.pbtxt")
    model = directory / "repository" / "m"
    (model / "1").mkdir(parents=True)
    (model / "1" / "model.py").touch()
    server = load([f"--model-repository={model.parent}"])
    for rng in budget.turns(tally):
        data = text(rng, rng.choice(model_configs()))
        tally.add(data)
        (model / "config.pbtxt").write_bytes(data)
        tally.heard(_refusal(partial(describe, model, None, server, rng.choice(((), ("0", "1")))), data))
    return tally


def server_configurations(directory: Path, budget: Budget) -> Tally:
    """A server.pbtxt, or a command line."""
    tally = Tally("server.pbtxt")
    path = directory / "server.pbtxt"
    (directory / "model_repository").mkdir()
    names = [option.name for option in OPTIONS if option.name not in {"help", "version"}]
    for rng in budget.turns(tally):
        data = text(rng, rng.choice(server_configs()), names)
        path.write_bytes(data)
        flags = [f"--config={path}"]
        if rng.random() < 0.3:
            value = rng.choice((*mutate.TEXTS, *map(str, mutate.NUMBERS)))
            flags.append(f"--{rng.choice(names).replace('_', '-')}={_from_a_shell(value)}")
        tally.add(data + repr(flags[1:]).encode("utf-8", "replace"))
        tally.heard(_refusal(partial(load, flags), data + b" " + repr(flags).encode("utf-8", "replace")))
    return tally


def _from_a_shell(value: str) -> str:
    """The text as it arrives on a command line: without null bytes, and bytes that are no UTF-8 are `\\udcXX`."""
    return os.fsdecode(value.replace("\0", "").encode("utf-8", "surrogatepass"))


def _refusal(read: Callable[[], Any], data: bytes) -> str:
    """What is said about a configuration; anything but a ConfigError of clear lines is a fault."""
    try:
        read()
    except ConfigError as error:
        lines = str(error).splitlines()
        assert lines, data
        assert all(line.isprintable() and line for line in lines), (lines, data)
        return lines[0]
    except Exception as error:
        raise AssertionError(f"{error!r} about {data[:5000]!r}") from error
    return ""
