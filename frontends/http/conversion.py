"""Long conversions beside the event loop, which has to turn: others are served by it, and the broker listens for it."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

LARGE = 256 * 1024
"""Converting more bytes than this takes milliseconds."""

Result = TypeVar("Result")

_thread = ThreadPoolExecutor(1, "conversion")
"""One thread: JSON parsers hold the interpreter's lock throughout, and with several the loop might never get it."""


async def convert(byte_size: int, conversion: Callable[[], Result]) -> Result:
    """Call `conversion`, in the thread when it is long."""
    if byte_size <= LARGE:
        return conversion()
    return await asyncio.get_running_loop().run_in_executor(_thread, conversion)
