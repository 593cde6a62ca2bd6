"""What it takes to call every method of tritonclient's clients: clients that count, a server, a region, a plugin."""

import asyncio
import contextlib
import inspect
import secrets
from collections.abc import AsyncIterable, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tritonclient.grpc import InferenceServerClientPlugin
from tritonclient.utils import shared_memory as memory

from tests.support.repository import instances, tensor, write_model
from tests.support.server import Server

LABELED = (
    f'backend: "identity"\ninput [ {tensor("IN")} ]\n'
    'output [ { name: "OUT" data_type: TYPE_FP32 dims: [ -1 ] label_filename: "labels.txt" } ]\n' + instances(1)
)


def methods_server(directory: Path) -> Server:
    """Mode explicit, `echo` is loaded and `other` is not; the log's settings are only for those who have the `Key`."""
    flags = ["--model-control-mode=explicit", "--load-model=echo"]
    flags += ["--http-restricted-api=logging:admin=secret", "--grpc-restricted-protocol=logging:admin=secret"]
    server = Server(directory, "", *flags)
    for name in ("echo", "other"):
        model = write_model(server.repository, name, LABELED)
        (model / "labels.txt").write_text("cat\ndog\n")
    return server


@contextlib.contextmanager
def region_of_numbers() -> Iterator[tuple[Any, str]]:
    """64 bytes of a client's shared memory that begin with 1, 2, 3, 4 in FP32: the handle and the key."""
    key = f"/test-{secrets.token_hex(8)}"
    handle = memory.create_shared_memory_region("mine", key, 64)
    memory.set_shared_memory_region(handle, [np.arange(1, 5, dtype=np.float32)])
    yield handle, key
    memory.destroy_shared_memory_region(handle)


class Key(InferenceServerClientPlugin):  # type: ignore[misc]  # tritonclient has no types
    """A plugin that opens what is restricted, over either protocol."""

    def __call__(self, request: Any) -> None:
        keys = {"admin": "secret", "triton-grpc-protocol-admin": "secret"}
        request.headers = {**(request.headers or {}), **keys}


class Sync:
    """Calls methods of a client and remembers which."""

    def __init__(self, kind: type[Any], address: str) -> None:
        self._kind = kind
        self._called: set[str] = set()
        self._client = self._connect(address)

    def _connect(self, address: str) -> Any:
        return self._kind(address)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method: Callable[..., Any] = getattr(self._client, name)
        self._called.add(name)
        return method

    def end(self) -> None:
        """Close the client."""
        self.close()

    def never_called(self) -> set[str]:
        """The public methods that nobody has called."""
        return {name for name in dir(self._kind) if not name.startswith("_")} - self._called


class Asyncio(Sync):
    """The same of an asyncio client, each call to its end."""

    def _connect(self, address: str) -> Any:
        self._runner = asyncio.Runner()

        async def connect() -> Any:
            return self._kind(address)

        return self._runner.run(connect())

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = super().__getattr__(name)

        async def call(*arguments: Any, **options: Any) -> Any:
            answer = method(*arguments, **options)
            if inspect.isawaitable(answer):
                return await answer
            return [each async for each in answer] if isinstance(answer, AsyncIterable) else answer

        return lambda *arguments, **options: self._runner.run(call(*arguments, **options))

    def end(self) -> None:
        super().end()
        self._runner.close()
