"""Where a model's coroutines run: one event loop for the instance's life, so that what they keep open stays usable."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any

END_SECONDS = 1.0


class Coroutines:
    """Either `run` or `start` is used: the calling thread turns the loop, or a thread of its own does."""

    def __init__(self) -> None:
        """The loop is made when it is first needed."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run to completion; its result."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        return self._loop.run_until_complete(coroutine)

    def start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Let it run beside those that are running already."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, name="execute", daemon=True)
            self._thread.start()
        asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def close(self) -> None:
        """The instance ends."""
        if self._loop is None:
            return
        if self._thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(END_SECONDS)
        if not self._loop.is_running():
            self._loop.close()
