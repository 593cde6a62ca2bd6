"""What is long does not run on the event loop."""

import asyncio
import threading

from frontends.http.conversion import LARGE, convert


def test_long_conversions_leave_the_loop_alone() -> None:
    async def threads() -> list[int]:
        return [await convert(size, threading.get_ident) for size in (LARGE, LARGE + 1, LARGE + 1)]

    small, large, other = asyncio.run(threads())
    assert small == threading.get_ident()
    assert large == other != small
