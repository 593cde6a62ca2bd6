"""Shared memory for a request that is being put together."""

import contextlib
from collections.abc import Iterator

from broker.client import Client
from broker.messages import ErrorCode
from frontends.errors import RequestError
from shm.arena import ArenaFull, Block


@contextlib.contextmanager
def until_sent(client: Client) -> Iterator[list[Block]]:
    """A list for the blocks of a request: they are given back when it cannot be put together.

    Raises RequestError where there is no room.
    """
    blocks: list[Block] = []
    try:
        yield blocks
    except ArenaFull as error:
        client.release(blocks)
        raise RequestError(ErrorCode.UNAVAILABLE, str(error)) from None
    except BaseException:
        client.release(blocks)
        raise
