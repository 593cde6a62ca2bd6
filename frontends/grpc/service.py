"""What the RPCs are served with."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from broker.client import Client
from broker.messages import ErrorCode, Message
from frontends.errors import RequestError
from frontends.forwarding import Forwarding
from frontends.labels import LabelSource


class Service(NamedTuple):
    """The fabric, and the server's options as far as RPCs depend on them."""

    client: Client
    server_id: str
    server_version: str
    labels: LabelSource
    forwarding: Forwarding
    allows_client_memory: bool

    @staticmethod
    def of(client: Client, options: Mapping[str, Any]) -> "Service":
        """Pick the options from the broker's Welcome."""
        return Service(
            client,
            options["id"],
            options["version"],
            LabelSource(client),
            Forwarding(options["grpc_header_forward_pattern"]),
            options["allow_client_shm"],
        )

    async def ask(self, question: Callable[[int], Message]) -> Any:
        """What the broker answers to the question with a fresh number. Raises RequestError."""
        number = self.client.number()
        answer = await self.client.ask(question(number), number)
        if answer.code != ErrorCode.OK:
            raise RequestError(answer.code, answer.error)
        return answer.content
