"""Memory for one execution after the other on the worker's GPU: pinned on the host, and its likeness on the device."""

from typing import Any

import cupy
import numpy as np

_ALIGNMENT = 256


class Buffer:
    """A tensor's place, on both sides. It grows when it has to; `address` stays the same until then."""

    def __init__(self) -> None:
        """No memory yet."""
        self._device: Any = None
        self._pinned: Any = None
        self._size = 0

    def reserve(self, byte_size: int) -> bool:
        """Room for so many bytes; True when the address has changed."""
        if self._device is not None and byte_size <= self._size:
            return False
        self._size = max(_ALIGNMENT, -(-byte_size // _ALIGNMENT) * _ALIGNMENT)
        self._device = cupy.cuda.alloc(self._size)
        self._pinned = cupy.cuda.alloc_pinned_memory(self._size)
        return True

    @property
    def address(self) -> int:
        """The device's."""
        return int(self._device.ptr)

    def upload(self, array: Any, stream: Any) -> None:
        """Copy an array to the device: on this thread to pinned memory, from there by the stream."""
        if array.nbytes:
            np.frombuffer(self._pinned, array.dtype, array.size).reshape(array.shape)[...] = array
            self._device.copy_from_host_async(self._pinned.ptr, array.nbytes, stream)

    def download(self, byte_size: int, stream: Any) -> None:
        """Copy to the host, once the stream has come so far."""
        if byte_size:
            self._device.copy_to_host_async(self._pinned.ptr, byte_size, stream)

    def content(self, byte_size: int) -> Any:
        """What `download` has brought, after the stream was waited for: bytes that the next execution overwrites."""
        return np.frombuffer(self._pinned, np.uint8, byte_size)
