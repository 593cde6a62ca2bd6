"""The fabric's asyncio client, in this process, with a fake broker: requests that cannot be sent."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from broker.child import Place
from broker.client import Client
from broker.messages import ErrorCode, Infer, Part
from tests.support.fake_broker import FakeBroker

SECONDS = 30.0
SURROGATE = "\ud800"
"""No Unicode text, and so nothing that can be packed."""


def request_of(client: Client, model: str, **parameters: str) -> Infer:
    return Infer(client.number(), model, -1, "", (), (), parameters, 0, 0, 0, 0, False, 0.0)


def run(scenario: Callable[[Client], Coroutine[Any, Any, None]]) -> None:
    async def connected() -> None:
        client = Client(Place(broker.socket, "t", "test", -1), "grpc", lambda: None)
        try:
            await asyncio.wait_for(client.connect(), SECONDS)
            await asyncio.wait_for(scenario(client), SECONDS)
            assert client.in_flight == 0
        finally:
            asyncio.get_running_loop().remove_reader(client._dealer.fileno())
            client._dealer.close()  # a frontend ends with its process, not before

    with FakeBroker() as broker:
        asyncio.run(connected())


def test_a_request_that_cannot_be_packed_fails_and_no_other() -> None:
    async def scenario(client: Client) -> None:
        bad, good = (client.infer(request_of(client, "echo", x=text), []) for text in (SURROGATE, "text"))
        failed, response = await asyncio.gather(bad, good, return_exceptions=True)
        assert isinstance(failed, UnicodeEncodeError)
        assert response.parameters == {"x": "text"}

    run(scenario)


def test_a_stream_that_cannot_be_packed_ends_with_an_error() -> None:
    async def scenario(client: Client) -> None:
        (response,) = [r async for r in client.stream(request_of(client, "stream", x=SURROGATE), [])]
        assert (response.code, response.part) == (ErrorCode.INTERNAL, Part.FINAL)
        assert response.error.startswith("the request cannot be passed on: ")

    run(scenario)
