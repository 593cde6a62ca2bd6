"""The fabric's asyncio client, in this process, with a fake broker: requests that cannot be sent."""

import asyncio
import os
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from broker.child import Place
from broker.client import LONG, Client
from broker.messages import Directory, ErrorCode, Infer, Part
from shm.region import sweep
from tests.support.fake_broker import FakeBroker
from tests.support.waiting import until

SECONDS = 30.0
SIZES = (1 << 20, 1 << 20, 0)
CACHED = Directory({"echo": "fake"}, {"fake": SIZES, "": SIZES}, (), ("echo",))
SURROGATE = "\ud800"
"""No Unicode text, and so nothing that can be packed."""


def request_of(client: Client, model: str, **parameters: str) -> Infer:
    return Infer(client.number(), model, -1, "", (), (), parameters, 0, 0, 0, 0, False, 0.0)


def run(scenario: Callable[[Client], Coroutine[Any, Any, None]]) -> None:
    server = os.urandom(4).hex()

    async def connected() -> None:
        client = Client(Place(broker.socket, "t", server, -1), "grpc", lambda: None)
        try:
            await asyncio.wait_for(client.connect(), SECONDS)
            await asyncio.wait_for(scenario(client), SECONDS)
            assert client.in_flight == 0
        finally:
            asyncio.get_running_loop().remove_reader(client._dealer.fileno())
            client._dealer.close()  # a frontend ends with its process, not before

    with FakeBroker() as broker:
        asyncio.run(connected())
    sweep(server)


def test_a_request_that_cannot_be_packed_fails_and_no_other() -> None:
    async def scenario(client: Client) -> None:
        bad, good = (client.infer(request_of(client, "echo", x=text), []) for text in (SURROGATE, "text"))
        failed, response = await asyncio.gather(bad, good, return_exceptions=True)
        assert isinstance(failed, UnicodeEncodeError)
        assert response.parameters == {"x": "text"}

    run(scenario)


def test_a_request_that_cannot_be_packed_fails_as_well_where_it_would_be_cached() -> None:
    async def scenario(client: Client) -> None:
        client._handle(CACHED)
        bad, good = (client.infer(request_of(client, "echo", x=text), []) for text in (SURROGATE, "text"))
        failed, response = await asyncio.gather(bad, good, return_exceptions=True)
        assert isinstance(failed, UnicodeEncodeError)
        assert response.parameters == {"x": "text"}

    run(scenario)


@pytest.mark.parametrize("is_cancelled", [False, True], ids=["waits", "goes"])
def test_long_inputs_are_free_again_when_their_digest_and_their_answer_are_there(is_cancelled: bool) -> None:
    async def scenario(client: Client) -> None:
        client._handle(CACHED)
        block = await client.allocate("echo", 2 * LONG)
        ref = block.store("IN", "UINT8", (2 * LONG,), bytes(2 * LONG))
        asked = asyncio.ensure_future(client.infer(request_of(client, "echo")._replace(inputs=(ref,)), [block]))
        await asyncio.sleep(0)  # it computes the digest
        assert client.arena("echo").used_byte_size
        if is_cancelled:
            asked.cancel()
        await asyncio.wait([asked])
        await asyncio.to_thread(until, lambda: not client.arena("echo").used_byte_size, SECONDS, "the block is free")

    run(scenario)


def test_a_stream_that_cannot_be_packed_ends_with_an_error() -> None:
    async def scenario(client: Client) -> None:
        (response,) = [r async for r in client.stream(request_of(client, "stream", x=SURROGATE), [])]
        assert (response.code, response.part) == (ErrorCode.INTERNAL, Part.FINAL)
        assert response.error.startswith("the request cannot be passed on: ")

    run(scenario)
