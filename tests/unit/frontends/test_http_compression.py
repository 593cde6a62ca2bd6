"""Compressed bodies: which encodings, in which direction, how large."""

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.messages import ErrorCode
from frontends.errors import RequestError
from frontends.http.compression import choose, compress, decompress, is_compressed


@given(st.binary(min_size=1), st.sampled_from(["gzip", "deflate"]))
def test_round_trip(data: bytes, encoding: str) -> None:
    assert decompress(compress(data, encoding), len(data)) == data


def test_what_clients_send() -> None:
    assert decompress(gzip.compress(b"abc"), 10) == b"abc"
    assert decompress(zlib.compress(b"abc"), 10) == b"abc"


def test_garbage_is_nothing_and_nothing_is_an_error() -> None:
    assert decompress(b"garbage", 10) == b""
    with pytest.raises(RequestError, match="nothing to be decompressed"):
        decompress(b"", 10)


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    with pytest.raises(RequestError) as caught:
        decompress(zlib.compress(bytes(1 << 20)), 1000)
    assert caught.value.message == (
        "Decompressed data size exceeds the maximum allowed value of 1000 bytes. "
        "Use --http-max-input-size to increase the limit."
    )


def test_content_encoding_is_exact() -> None:
    assert is_compressed("gzip")
    assert is_compressed("deflate")
    assert not is_compressed("identity")
    for unknown in ("GZIP", "br", ""):
        with pytest.raises(RequestError, match="Unsupported compression type") as caught:
            is_compressed(unknown)
        assert caught.value.code == ErrorCode.UNSUPPORTED


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        ("gzip", "gzip"),
        ("gzip, deflate", "gzip"),
        ("deflate, gzip", "deflate"),
        ("identity, gzip", "identity"),
        ("gzip;q=0.5, deflate;q=0.9", "deflate"),
        ("br, gzip", "gzip"),
        ("br", "identity"),
        ("*", "identity"),
        ("GZIP", "identity"),
        ("gzip;q=0", "identity"),
        ("gzip;q=x", "identity"),
        ("gzip;q=nan", "identity"),
        ("", "identity"),
    ],
)
def test_the_response_is_encoded_as_accepted(accepted: str, encoding: str) -> None:
    assert choose(accepted) == encoding
