"""The shared memory that clients have registered, read and written by position and never mapped.

A client may truncate its region at any time. In a mapping that would be a SIGBUS for whoever touches it; here it is a
short read, and the request's error.
"""

import os
import stat
import threading
from typing import Any, Protocol

import numpy as np

from broker.messages import ClientRegion, ErrorCode
from shm import copies
from shm.arena import Buffer
from shm.ref import TensorRef
from shm.region import DIRECTORY, PREFIX
from workers.cuda_memory import CudaMemory
from workers.errors import BackendError

MARK = "@"
"""Begins the region of a reference to client memory: `@NUMBER`."""


class Memory(Protocol):
    """One region, open. `read` and `write` raise BackendError; offsets are from the object's beginning."""

    def read(self, offset: int, into: memoryview) -> None:
        """Fill `into` from `offset`."""

    def write(self, offset: int, data: memoryview) -> None:
        """Write all of `data` at `offset`."""

    def close(self) -> None:
        """Let go of it."""


class ClientMemory:
    """The regions that the broker has told of. Each is opened when it is first used. All methods are for any thread."""

    def __init__(self) -> None:
        """None is registered."""
        self._regions: dict[int, ClientRegion] = {}
        self._open: dict[int, Memory] = {}
        self._lock = threading.Lock()  # nobody uses what is being closed

    def add(self, region: ClientRegion) -> None:
        """A client has registered memory."""
        self._regions[region.number] = region

    def remove(self, number: int) -> None:
        """No reference to this region will come any more."""
        with self._lock:
            self._regions.pop(number, None)
            memory = self._open.pop(number, None)
            if memory is not None:
                memory.close()

    def read(self, ref: TensorRef) -> np.ndarray[Any, Any]:
        """A tensor's bytes in memory of our own. Raises BackendError."""
        data = np.empty(ref.byte_size, np.uint8)
        with self._lock:
            self._memory(ref.region).read(ref.offset, data.data)
        copies.count("client", ref.byte_size)
        return data

    def write(self, name: str, offset: int, data: Buffer) -> None:
        """Write to `offset` of the region `@NUMBER`, which the caller knows to reach that far. Raises BackendError."""
        with self._lock:
            self._memory(name).write(offset, memoryview(data))
        copies.count("client", len(data))

    def _memory(self, name: str) -> Memory:
        number = int(name.removeprefix(MARK))
        memory = self._open.get(number)
        if memory is None:
            region = self._regions.get(number)
            if region is None:
                raise BackendError(ErrorCode.UNAVAILABLE, "the shared memory region is not registered any more")
            memory = CudaMemory(region.handle) if region.kind == "cuda" else _SystemMemory(region.key)
            self._open[number] = memory
        return memory


class _SystemMemory:
    """A POSIX shared memory object of this user."""

    def __init__(self, key: str) -> None:
        """Raises BackendError."""
        self._key = key
        name = key.removeprefix("/")
        unable = BackendError(ErrorCode.INTERNAL, f"Unable to open shared memory region: '{key}'")
        if not name or "/" in name or name in {".", ".."} or name.startswith(PREFIX):
            raise unable
        try:
            descriptor = os.open(DIRECTORY / name, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except (OSError, ValueError):
            raise unable from None
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            os.close(descriptor)
            raise unable
        self._descriptor = descriptor

    def read(self, offset: int, into: memoryview) -> None:
        done = 0
        while done < len(into):
            count = os.preadv(self._descriptor, [into[done:]], offset + done)
            if count == 0:
                raise self._truncated(offset + len(into))
            done += count

    def write(self, offset: int, data: memoryview) -> None:
        if os.fstat(self._descriptor).st_size < offset + len(data):
            raise self._truncated(offset + len(data))  # writing would make it larger again
        done = 0
        try:
            while done < len(data):
                done += os.pwritev(self._descriptor, [data[done:]], offset + done)
        except OSError as error:
            text = f"shared memory region '{self._key}' cannot be written: {error.strerror}"
            raise BackendError(ErrorCode.UNAVAILABLE, text) from None

    def close(self) -> None:
        os.close(self._descriptor)

    def _truncated(self, needed: int) -> BackendError:
        return BackendError(
            ErrorCode.INVALID_ARG,
            f"shared memory region '{self._key}' was made smaller after it had been registered: {needed} bytes are "
            "needed",
        )
