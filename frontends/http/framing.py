"""How a body says which part of it is JSON: by a header in Triton's protocol, on other platforms by its type."""

import re
from collections.abc import Mapping
from typing import Protocol

from aiohttp import hdrs
from multidict import istr

from broker.messages import ErrorCode
from frontends.errors import RequestError

HEADER_LENGTH = istr("Inference-Header-Content-Length")

_BINARY = "application/octet-stream"


class Framing(Protocol):
    """Reads the length of the JSON part of a request, and writes that of a response with binary tensors."""

    def length(self, headers: Mapping[str, str]) -> int | None:
        """Bytes of JSON before the binary section; None when all is JSON. Raises RequestError."""

    def headers(self, length: int) -> dict[str, str]:
        """The headers of a response of which so many bytes are JSON."""


class HeaderFraming:
    """Triton's binary tensor extension: the header `Inference-Header-Content-Length`."""

    def length(self, headers: Mapping[str, str]) -> int | None:
        """See `Framing`."""
        value = headers.get(HEADER_LENGTH)
        return None if value is None else _parse(value, HEADER_LENGTH)

    def headers(self, length: int) -> dict[str, str]:
        """See `Framing`."""
        return {hdrs.CONTENT_TYPE: _BINARY, HEADER_LENGTH: str(length)}


class ContentTypeFraming:
    """A content type with a parameter: `MIME;json-header-size=N`."""

    def __init__(self, mime: str) -> None:
        """`mime` is the platform's type for JSON with binary tensors."""
        self._prefix = f"{mime};json-header-size="
        self._pattern = re.compile(re.escape(mime) + r"\s*;\s*json-header-size=(.*)")

    def length(self, headers: Mapping[str, str]) -> int | None:
        """See `Framing`."""
        match = self._pattern.fullmatch(headers.get(hdrs.CONTENT_TYPE, ""))
        return None if match is None else _parse(match[1], "inference header size")

    def headers(self, length: int) -> dict[str, str]:
        """See `Framing`."""
        return {hdrs.CONTENT_TYPE: f"{self._prefix}{length}"}


def _parse(value: str, what: str) -> int:
    try:
        length = int(value)
    except ValueError:
        raise RequestError(ErrorCode.INVALID_ARG, f"Unable to parse {what}, got: {value}") from None
    if not -(2**31) <= length < 2**31:
        text = f"Unable to parse {what}, value is out of range [ -2147483648, 2147483647 ], got: {value}"
        raise RequestError(ErrorCode.INVALID_ARG, text)
    return length
