"""What a handler of the HTTP frontend gets: one request, and what the process serves it with."""

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeAlias

from aiohttp import web

from broker.client import Client
from broker.messages import ErrorCode
from frontends.errors import RequestError

NEWEST = -1


class Options(NamedTuple):
    """The HTTP frontend's part of the server's options."""

    server_id: str
    server_version: str
    max_input_byte_size: int

    @staticmethod
    def of(options: dict[str, Any]) -> "Options":
        """Pick them from the broker's Welcome."""
        return Options(options["id"], options["version"], options["http_max_input_size"])


class Call(NamedTuple):
    """One HTTP request. `model` and `version_text` are what its path names, `""` for what it does not."""

    client: Client
    options: Options
    request: web.BaseRequest
    model: str
    version_text: str

    @property
    def version(self) -> int:
        """The version in the path. Raises RequestError."""
        return parse_version(self.version_text)


Handler: TypeAlias = Callable[[Call], Awaitable[web.StreamResponse]]


def parse_version(text: str) -> int:
    """The version that digits name, NEWEST for none. Raises RequestError."""
    if not text:
        return NEWEST
    if len(text) > 19 or (version := int(text)) >= 2**63:
        raise RequestError(
            ErrorCode.INVALID_ARG,
            f"failed to get model version from specified version string '{text}' (details: stol), "
            "version should be an integral value > 0",
        )
    return version
