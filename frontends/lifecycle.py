"""The life of a frontend process: take its place, connect, serve, drain when told to stop."""

import asyncio
import gc
import logging
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeAlias

import uvloop

from broker.child import Place, take_place
from broker.client import Client

GC_THRESHOLD = 50_000
"""Objects between collections: requests leave hardly any cycles, and a collection costs milliseconds."""


class Server(Protocol):
    """A protocol's server while it accepts requests."""

    async def drain(self, seconds: float) -> None:
        """Accept nothing new and let what is under way finish; after `seconds` it is cut off."""


Serve: TypeAlias = Callable[[Client, dict[str, Any], Place], Awaitable[Server]]
"""Starts a server, which is accepting requests when this returns, with the options of the broker's Welcome."""


def run(role: str, serve: Serve) -> None:
    """Be a frontend until the broker says stop; `role` is `http`, `grpc` or `metrics`."""
    place = take_place(sys.argv[1:])
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_live(place, role, serve))


async def _live(place: Place, role: str, serve: Serve) -> None:
    stop = asyncio.Event()
    client = Client(place, role, stop.set)
    options = (await client.connect()).options
    server = await serve(client, options, place)
    client.serving()
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
    await stop.wait()
    await server.drain(options["exit_timeout_secs"])
