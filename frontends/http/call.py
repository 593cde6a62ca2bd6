"""What a handler of the HTTP frontend gets: one request, and what the process serves it with."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

from aiohttp import web

from broker.client import Client
from broker.messages import ErrorCode, Message
from frontends.errors import RequestError
from frontends.forwarding import Forwarding
from frontends.http.framing import Framing, HeaderFraming
from frontends.labels import LabelSource
from frontends.versions import parse_version


class Options(NamedTuple):
    """The HTTP frontend's part of the server's options."""

    server_id: str
    server_version: str
    max_input_byte_size: int
    allows_client_memory: bool
    forwarding: Forwarding
    framing: Framing

    @staticmethod
    def of(options: Mapping[str, Any]) -> "Options":
        """Pick them from the broker's Welcome; headers are forwarded, and bodies framed, as in Triton's protocol."""
        return Options(
            options["id"],
            options["version"],
            options["http_max_input_size"],
            options["allow_client_shm"],
            Forwarding(options["http_header_forward_pattern"]),
            HeaderFraming(),
        )


class Call(NamedTuple):
    """One HTTP request. `names` are the parts of its path that the route names."""

    client: Client
    options: Options
    labels: LabelSource
    request: web.BaseRequest
    names: Mapping[str, str]

    @property
    def model(self) -> str:
        """The model in the path, `""` for none."""
        return self.names.get("model", "")

    @property
    def version(self) -> int:
        """The version in the path. Raises RequestError."""
        return parse_version(self.names.get("version", ""))

    @property
    def trace_context(self) -> tuple[str, str]:
        """The W3C trace context of the client: traceparent and tracestate."""
        headers = self.request.headers
        context = headers.get("traceparent", ""), headers.get("tracestate", "")
        return context if "".join(context).isascii() else ("", "")

    async def ask(self, question: Callable[[int], Message]) -> Any:
        """The content of the broker's answer to a question, which is made from its number. Raises RequestError."""
        number = self.client.number()
        answer = await self.client.ask(question(number), number)
        if answer.code != ErrorCode.OK:
            raise RequestError(answer.code, answer.error)
        return answer.content


Handler: TypeAlias = Callable[[Call], Awaitable[web.StreamResponse]]
