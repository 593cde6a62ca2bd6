"""Bad HTTP requests: with changed JSON, of hostile shapes and sizes, and broken as HTTP."""

import gzip
import json
import random
from collections.abc import Callable
from typing import Any

from tests.fuzz import mutate
from tests.fuzz.corpus import Request, http_requests

LENGTH = b"inference-header-content-length"
FRAMING = (b"content-length", b"transfer-encoding", LENGTH)
RESTORE = b'{"log_info":true,"log_warning":true,"log_error":true,"log_verbose_level":0,"log_format":"default"}'


def assemble(line: bytes, headers: tuple[bytes, ...], body: bytes) -> bytes:
    """A request with the length of its body."""
    return b"\r\n".join([line, *headers, b"Content-Length: %d" % len(body), b"", body])


def changed_json(rng: random.Random) -> bytes:
    """A request of the corpus whose body has changed as JSON; sometimes also its binary section and header."""
    seed = rng.choice(http_requests())
    length = header(seed, LENGTH)
    size = int(length) if length is not None and length.strip().isdigit() else len(seed.body)
    try:
        document = json.loads(seed.body[:size])
    except ValueError:
        return changed_bytes(rng, seed)
    text = dumped(rng, mutate.tree(rng, document))
    blobs = seed.body[size:]
    if blobs and rng.random() < 0.3:
        blobs = mutate.data(rng, blobs)
    headers = tuple(h for h in seed.headers if not h.lower().startswith(FRAMING))
    if length is not None:
        number: Any = len(text) if rng.random() < 0.9 else rng.choice((*mutate.NUMBERS, "", "x", " 1", "0x10"))
        headers += (b"Inference-Header-Content-Length: " + str(number).encode(),)
    return assemble(seed.line, headers, text + blobs)


def changed_bytes(rng: random.Random, seed: Request) -> bytes:
    """A request whose body has changed as bytes."""
    headers = tuple(h for h in seed.headers if not h.lower().startswith(FRAMING[:2]))
    return assemble(seed.line, headers, mutate.data(rng, seed.body))


def header(request: Request, name: bytes) -> bytes | None:
    """The value of a header."""
    for each in request.headers:
        key, _, value = each.partition(b":")
        if key.lower() == name:
            return value
    return None


def dumped(rng: random.Random, document: Any) -> bytes:
    """JSON, sometimes with text as it is (also where that is no UTF-8)."""
    if rng.random() < 0.5:
        return json.dumps(document).encode()
    return json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogatepass")


def pick(rng: random.Random, *choices: Callable[[], bytes]) -> bytes:
    """What one of these makes."""
    return rng.choice(choices)()


# ----------------------------------------------------------------------------------------------- hostile


def infer(model: str, document: Any, blobs: bytes = b"", *headers: bytes) -> bytes:
    """An inference request."""
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    headers += (b"Inference-Header-Content-Length: %d" % len(text),) if blobs else ()
    return assemble(f"POST /v2/models/{model}/infer HTTP/1.1".encode(), (b"Host: x", *headers), text + blobs)


def one(shape: Any, data: Any = None, datatype: str = "FP32", model: str = "identity_fp32", **parameters: Any) -> bytes:
    """A request with one input."""
    tensor = {"name": "IN", "shape": shape, "datatype": datatype, "parameters": parameters}
    return infer(model, {"inputs": [tensor | ({} if data is None else {"data": data})]})


SIZES = (2**31 - 1, 2**31, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 2**128, 10**30)


def product(rng: random.Random) -> bytes:
    """A shape whose product overflows."""
    dims = [rng.choice((0, 1, 2, 2**16, 2**31, 2**32, 2**63, 2**64 - 1)) for _ in range(rng.randrange(1, 9))]
    datatype = rng.choice(("FP32", "INT64", "BOOL", "BYTES", "FP64"))
    return one(dims, [1], datatype, rng.choice(("identity_fp32", "matrix")))


def binary_size(rng: random.Random) -> bytes:
    """A binary size beyond anything, with a shape to match."""
    size = rng.choice(SIZES)
    return infer(
        "identity_fp32",
        {
            "inputs": [
                {"name": "IN", "shape": [size // 4], "datatype": "FP32", "parameters": {"binary_data_size": size}}
            ]
        },
        rng.randbytes(rng.randrange(1, 64)),
    )


def place(rng: random.Random) -> bytes:
    """Shared memory at places that are none."""
    names = ("shared_memory_byte_size", "shared_memory_offset")
    places: dict[str, Any] = {name: rng.choice((*SIZES, -1, 0, 1.5, "1")) for name in names}
    return one([1], shared_memory_region="r", **places)


def many_dims(rng: random.Random) -> bytes:
    """Up to a million dimensions."""
    return one([rng.choice((0, 1))] * rng.choice((33, 65, 1000, 1_000_000)), [1])


def deep(rng: random.Random) -> bytes:
    """Nesting in the data, or of the document."""
    depth = rng.choice((98, 99, 100, 101, 1000, 100_000))
    text = b"[" * depth + b"1" + b"]" * rng.choice((depth, 0, 1))
    if rng.random() < 0.5:
        return infer("identity_fp32", b'{"x":' * rng.choice((1, depth)) + text)
    return infer("identity_fp32", b'{"inputs":[{"name":"IN","shape":[1],"datatype":"FP32","data":%b}]}' % text)


def many_members(rng: random.Random) -> bytes:
    """Thousands of inputs, outputs or parameters."""
    count = rng.choice((100, 5000, 50_000))
    tensor = {"name": "IN", "shape": [1], "datatype": "FP32", "data": [rng.random()]}
    return pick(
        rng,
        lambda: infer("identity_fp32", {"inputs": [tensor] * count}),
        lambda: infer("identity_fp32", {"inputs": [tensor], "outputs": [{"name": f"O{n}"} for n in range(count)]}),
        lambda: infer("parameters", {"inputs": [], "parameters": {f"p{n}": n for n in range(count)}}),
        lambda: infer("identity_fp32", {"inputs": [{**tensor, "name": f"I{n}"} for n in range(count)]}),
    )


def long_text(rng: random.Random) -> bytes:
    """Long names, ids and numbers."""
    size = rng.choice((1000, 100_000, 2_000_000))
    text = rng.choice("aé\0") * size
    tensor = {"name": "IN", "shape": [1], "datatype": "FP32", "data": [1]}
    return pick(
        rng,
        lambda: infer("identity_fp32", {"id": text, "inputs": [tensor]}),
        lambda: infer("identity_fp32", {"inputs": [{**tensor, "name": text}]}),
        lambda: infer("identity_fp32", {"inputs": [{**tensor, "datatype": text}]}),
        lambda: infer(
            "identity_fp32", b'{"inputs":[{"name":"IN","shape":[1],"datatype":"FP32","data":[%b]}]}' % (b"9" * size)
        ),
        lambda: infer("identity_fp32", {"inputs": [tensor], "parameters": {"sequence_id": text}}),
        lambda: assemble(b"GET /v2/models/" + b"m" * min(size, 7000) + b" HTTP/1.1", (b"Host: x",), b""),
    )


def bomb(rng: random.Random) -> bytes:
    """A small body that decompresses to a large one."""
    packed = gzip.compress(b" " * rng.choice((10**6, 65 * 2**20)), compresslevel=1, mtime=0)
    return infer("identity_fp32", packed + rng.randbytes(rng.randrange(0, 9)), b"", b"Content-Encoding: gzip")


def strings(rng: random.Random) -> bytes:
    """BYTES whose lengths lie."""
    size = rng.choice((0, 3, 5, 100, 2**31, 2**32 - 1))
    blob = size.to_bytes(4, "little") + rng.randbytes(rng.choice((0, 1, 3, 5, 100)))
    shape = rng.choice(([1], [2], [0], [2**32], [2**63]))
    tensor = {"name": "BYTES", "shape": shape, "datatype": "BYTES", "parameters": {"binary_data_size": len(blob)}}
    return infer("types", {"inputs": [tensor]}, blob)


def restore_log(_rng: random.Random) -> bytes:
    """The log as it was: what has gone before may have changed it."""
    return assemble(b"POST /v2/logging HTTP/1.1", (b"Host: x",), RESTORE)


HOSTILE: tuple[Callable[[random.Random], bytes], ...] = (
    *(product, product, product, binary_size, binary_size, place, place, strings, strings),
    *(many_dims, deep, deep, long_text, many_members, bomb),
)


def document(rng: random.Random) -> bytes:
    """A well-framed request with something wrong inside."""
    return rng.choice(HOSTILE)(rng) if rng.random() < 0.04 else changed_json(rng)


# ----------------------------------------------------------------------------------------------- framing

SNIPPETS = (
    *(b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: identity"),
    *(b"Content-Length: 5", b"Content-Length: -1", b"Content-Length: 99999999999999999999", b"Content-Length: 1,1"),
    *(
        b"Content-Length : 5",
        b"Content-Length: 0x5",
        b"Expect: 100-continue",
        b"Expect: nonsense",
        b"Connection: close",
    ),
    *(b"Connection: upgrade", b"Upgrade: h2c", b"Upgrade: websocket", b"Host: a\r\nHost: b", b" folded", b"\tfolded"),
    *(
        b"No-Colon",
        b": no name",
        b"Null: \0",
        b"Control: \x01\x7f",
        b"High: \xff\xfe",
        b"Content-Encoding: br, gzip, x",
    ),
    *(
        b"Inference-Header-Content-Length: " + b"9" * 40,
        b"Accept-Encoding: gzip;q=" + b"9" * 300,
        b"X: " + b"y" * 70_000,
    ),
)
CHUNKS = (
    *(b"0\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n", b"ffffffffffffffff\r\n", b"-1\r\n\r\n", b"5;a=b\r\nhello\r\n0\r\n\r\n"),
    *(
        b"5\nhello\n0\n\n",
        b"zz\r\n",
        b"5\r\nhelloXX0\r\n\r\n",
        b"1\r\na\r\n" * 500 + b"0\r\n\r\n",
        b"0" * 5000 + b"\r\n\r\n",
    ),
)
STARTS = (
    *(
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03",
        b"\r\n\r\n\r\n",
        b"\0" * 64,
    ),
    *(
        b"GET",
        b"GET /",
        b"GET  /v2 HTTP/1.1\r\n\r\n",
        b"GET /v2 HTTP/9.9\r\n\r\n",
        b"GET /v2 HTTP/1.1\n\n",
        b"GET * HTTP/1.1\r\n\r\n",
    ),
    *(
        b"GET /v2\xff HTTP/1.1\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\n" + b"a: b\r\n" * 5000 + b"\r\n",
        b"GET /" + b"a" * 70_000,
    ),
    *(
        b"CONNECT localhost:80 HTTP/1.1\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http://x HTTP/1.1\r\n\r\n",
    ),
)


def broken(rng: random.Random) -> bytes:
    """Bytes for one connection that are hardly HTTP."""
    action = rng.random()
    if action < 0.1:
        return mutate.data(rng, rng.choice(STARTS)) if rng.random() < 0.7 else rng.choice(STARTS)
    seed = rng.choice(http_requests())
    lines = [seed.line, *seed.headers]
    body = seed.body
    if action < 0.5:
        for _ in range(rng.randrange(1, 4)):
            lines.insert(rng.randrange(1, len(lines) + 1), rng.choice(SNIPPETS))
    if action < 0.2:
        body = rng.choice(CHUNKS)
        lines.append(b"Transfer-Encoding: chunked")
    data = b"\r\n".join([*lines, b"", body])
    if action > 0.6:
        data = mutate.data(rng, data)
    return data * rng.choice((1, 1, 1, 1, 2, 20)) if len(data) < 4000 else data
