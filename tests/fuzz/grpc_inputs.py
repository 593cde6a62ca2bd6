"""Bad gRPC: changed messages for every RPC, and broken HTTP/2."""

import random

from tritonclient.grpc import service_pb2

from tests.fuzz import mutate
from tests.fuzz.corpus import grpc_calls, other_grpc_calls
from tests.fuzz.http_inputs import pick
from tests.golden.exchange import INFERENCE

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
END_STREAM, END_HEADERS = 1, 4


def call(rng: random.Random) -> tuple[str, list[bytes]]:
    """An RPC and its changed messages; several only for a stream."""
    rpc, seed = rng.choice(grpc_calls())
    if not rpc.endswith("StreamInfer"):
        return rpc, [mutate.protobuf(rng, seed)]
    return rpc, [mutate.protobuf(rng, rng.choice(grpc_calls())[1]) for _ in range(rng.randrange(1, 4))]


def restore_log() -> tuple[str, list[bytes]]:
    """The log as it was: what has gone before may have changed it."""
    request = service_pb2.LogSettingsRequest()
    for name in ("log_info", "log_warning", "log_error"):
        request.settings[name].bool_param = True
    request.settings["log_verbose_level"].uint32_param = 0
    request.settings["log_format"].string_param = "default"
    return f"{INFERENCE}/LogSettings", [request.SerializeToString()]


def frame(kind: int, flags: int, stream: int, payload: bytes, length: int | None = None) -> bytes:
    """An HTTP/2 frame; `length` is what it claims to carry."""
    size = (len(payload) if length is None else length) % 2**24
    return size.to_bytes(3, "big") + bytes([kind, flags]) + (stream % 2**32).to_bytes(4, "big") + payload


def literal(name: bytes, value: bytes) -> bytes:
    """A header that is not indexed, as HPACK writes it; both parts are shorter than 127 bytes."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


def head(path: bytes, *more: tuple[bytes, bytes]) -> bytes:
    """The headers of a call."""
    usual = (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path),
        (b":authority", b"localhost"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
    )
    return b"".join(literal(*pair) for pair in (*usual, *more))


def prefixed(message: bytes, length: int | None = None, is_compressed: int = 0) -> bytes:
    """A message in gRPC's envelope, which may lie about its length."""
    size = len(message) if length is None else length
    return bytes([is_compressed]) + (size % 2**32).to_bytes(4, "big") + message


def connection(rng: random.Random) -> bytes:
    """All that one client sends on a connection: a call with something wrong."""
    frames = [frame(SETTINGS, 0, 0, b"")]
    for number in range(rng.randrange(1, 4)):
        rpc, seed = rng.choice(other_grpc_calls())
        stream = rng.choice((2 * number + 1, 2 * number + 1, 2 * number + 1, 0, 2, 2**31 - 1))
        path = b"/" + rpc.encode()[:100]
        headers = head(path if rng.random() < 0.9 else mutate.data(rng, path)[:120], *rng.choice(EXTRA))
        if rng.random() < 0.1:
            headers = mutate.data(rng, headers)
        envelope = prefixed(seed, rng.choice(LENGTHS), rng.choice((0, 0, 0, 1, 255)))
        frames += [
            frame(HEADERS, END_HEADERS, stream, headers),
            frame(DATA, END_STREAM, stream, envelope[:16_000]),
        ]
    for _ in range(rng.randrange(0, 4)):
        frames.insert(rng.randrange(len(frames) + 1), odd_frame(rng))
    data = b"".join(frames)
    if rng.random() < 0.4:
        data = mutate.data(rng, data)
    return (PREFACE if rng.random() < 0.95 else mutate.data(rng, PREFACE)) + data


LENGTHS = (None, None, None, 0, 1, 2**31 - 1, 2**32 - 1)
EXTRA: tuple[tuple[tuple[bytes, bytes], ...], ...] = (
    (),
    ((b"grpc-timeout", b"1n"),),
    ((b"grpc-timeout", b"99999999H"),),
    ((b"grpc-timeout", b"x"),),
    ((b"grpc-encoding", b"gzip"),),
    ((b"grpc-encoding", b"nothing"),),
    ((b"content-type", b"text/html"),),
    ((b":path", b"/"),),
    ((b"UPPER", b"case"),),
    ((b"triton_grpc_error", b"true"),),
    ((b"x-bin", b"!!!"),),
)


def odd_frame(rng: random.Random) -> bytes:
    """A frame that nobody needs."""
    number = rng.choice((0, 1, 2, 3, 5, 2**31 - 1, 2**31, 2**32 - 1))
    return pick(
        rng,
        lambda: frame(SETTINGS, 0, 0, rng.randbytes(6 * rng.randrange(0, 5))),
        lambda: frame(SETTINGS, rng.randrange(256), number, rng.randbytes(rng.randrange(0, 9))),
        lambda: frame(PING, 0, 0, rng.randbytes(8)) * rng.choice((1, 50)),
        lambda: frame(WINDOW_UPDATE, 0, number, rng.choice((b"\0" * 4, b"\x7f\xff\xff\xff", b"\xff" * 4, b"\0\0"))),
        lambda: frame(RST_STREAM, 0, number, rng.randbytes(4)) * rng.choice((1, 50)),
        lambda: frame(CONTINUATION, 0, 1, literal(b"a", b"b")) * rng.choice((1, 100)),
        lambda: frame(HEADERS, 0, 1, head(b"/x")),
        lambda: frame(PRIORITY, 0, number, rng.randbytes(5)),
        lambda: frame(PUSH_PROMISE, END_HEADERS, 1, rng.randbytes(20)),
        lambda: frame(GOAWAY, 0, 0, rng.randbytes(8)),
        lambda: frame(DATA, 8, 1, b"\xff" + b"x" * 10),
        lambda: frame(rng.randrange(256), rng.randrange(256), number, rng.randbytes(rng.randrange(0, 40))),
        lambda: frame(DATA, 0, 1, b"x" * 10, rng.choice((0, 5, 16_384, 16_385, 2**24 - 1))),
    )
