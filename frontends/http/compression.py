"""Compressed request and response bodies, by Triton's rules. Pure."""

import zlib

from broker.messages import ErrorCode
from frontends.errors import RequestError
from shm.arena import Buffer

ACCEPTED = "gzip, deflate"
"""What a client is told that uses another encoding."""

_ANY_HEADER = zlib.MAX_WBITS + 32
"""zlib's window argument for reading either format."""
_WINDOW = {"gzip": zlib.MAX_WBITS + 16, "deflate": zlib.MAX_WBITS}


class UnknownEncoding(RequestError):
    """A body in an encoding that we cannot undo."""


def is_compressed(encoding: str) -> bool:
    """Whether a Content-Encoding has to be undone. Raises UnknownEncoding."""
    if encoding in {"gzip", "deflate"}:
        return True
    if encoding == "identity":
        return False
    raise UnknownEncoding(ErrorCode.UNSUPPORTED, "Unsupported compression type")


def decompress(data: Buffer, limit: int) -> bytes:
    """The plain body; nothing when `data` is neither gzip nor zlib. Raises RequestError beyond `limit` bytes."""
    if not data:
        raise RequestError(ErrorCode.INVALID_ARG, "nothing to be decompressed")
    try:
        plain = zlib.decompressobj(_ANY_HEADER).decompress(data, limit + 1)
    except zlib.error:
        return b""
    if len(plain) > limit:
        raise RequestError(
            ErrorCode.INVALID_ARG,
            f"Decompressed data size exceeds the maximum allowed value of {limit} bytes. "
            "Use --http-max-input-size to increase the limit.",
        )
    return plain


def compress(data: Buffer, encoding: str) -> bytes:
    """`data` as `gzip` or `deflate` (which is the zlib format)."""
    compressor = zlib.compressobj(wbits=_WINDOW[encoding])
    return compressor.compress(data) + compressor.flush()


def choose(accepted: str) -> str:
    """The encoding of a response by its request's Accept-Encoding: the heaviest that we have, the first of equals."""
    best, best_weight = "identity", 0.0
    for entry in accepted.split(","):
        encoding, _, parameter = (part.strip() for part in entry.partition(";"))
        weight = _weight(parameter)
        if encoding in {"identity", "gzip", "deflate"} and weight > best_weight:
            best, best_weight = encoding, weight
    return best


def _weight(parameter: str) -> float:
    if not parameter.startswith("q="):
        return 1.0
    try:
        return float(parameter[2:])
    except ValueError:
        return 0.0
