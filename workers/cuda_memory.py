"""Device memory that a client has registered by its CUDA IPC handle, read and written through cupy."""

from importlib import import_module
from typing import Any

import numpy as np

from broker.messages import ErrorCode
from workers.errors import BackendError

_TO_DEVICE, _TO_HOST = 1, 2
"""cudaMemcpyKind."""


class CudaMemory:
    """An open handle. The worker's GPU is its only one, and the memory must be that GPU's."""

    def __init__(self, handle: bytes) -> None:
        """Raises BackendError."""
        try:
            self._runtime: Any = import_module("cupy").cuda.runtime
            self._pointer: int = self._runtime.ipcOpenMemHandle(handle)
        except ModuleNotFoundError:
            raise BackendError(
                ErrorCode.UNSUPPORTED, "CUDA shared memory needs the package 'cupy': pip install 'tidepool[gpu]'"
            ) from None
        except Exception as error:
            raise BackendError(
                ErrorCode.UNSUPPORTED,
                f"CUDA shared memory cannot be opened by this model, whose instance must be on the same GPU: {error}",
            ) from None

    def read(self, offset: int, into: memoryview) -> None:
        """Copy from the device. Raises BackendError."""
        self._copy(_address(into), self._pointer + offset, len(into), _TO_HOST)

    def write(self, offset: int, data: memoryview) -> None:
        """Copy to the device. Raises BackendError."""
        self._copy(self._pointer + offset, _address(data), len(data), _TO_DEVICE)

    def close(self) -> None:
        """Close the handle."""
        self._runtime.ipcCloseMemHandle(self._pointer)

    def _copy(self, target: int, source: int, byte_size: int, kind: int) -> None:
        try:
            self._runtime.memcpy(target, source, byte_size, kind)
        except Exception as error:
            text = f"CUDA shared memory cannot be copied: {error}"
            raise BackendError(ErrorCode.INTERNAL, text) from None


def _address(data: memoryview) -> int:
    return int(np.frombuffer(data, np.uint8).ctypes.data)
