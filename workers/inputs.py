"""The inputs of a batch: raw bytes where they lie, numpy views of them, and private copies that a model may write to.

The blocks behind them are read by every attempt at a request. A model that writes to its inputs gets memory of its own:
else a request retried after a crash would run on what the first attempt left behind.
"""

from typing import Any

import numpy as np

from broker.messages import ErrorCode
from shm import copies
from shm.arena import Buffer
from shm.datatypes import ELEMENT_SIZE
from shm.ref import TensorRef
from shm.tensor import MalformedBytes, Regions, as_array
from workers.client_memory import MARK, ClientMemory
from workers.errors import BackendError, MalformedInput

COPY_LIMIT = 32 << 20
"""Up to this many bytes a copy is faster than the page faults of a copy-on-write mapping. Beyond, they are even, and a
copy would need the memory twice."""


class Inputs:
    """Reads tensors in the regions that this process has mapped, and in memory that clients have registered.

    All methods raise BackendError: UNAVAILABLE when the region is gone, INVALID_ARG for malformed content.
    """

    def __init__(self, regions: Regions, client_memory: ClientMemory) -> None:
        """Both stay the worker's."""
        self._regions = regions
        self._client_memory = client_memory

    def raw(self, ref: TensorRef) -> Buffer:
        """The tensor's binary form: where it lies, or (client memory) a copy."""
        try:
            if ref.region.startswith(MARK):
                return self._client_memory.read(ref).data
            return self._regions.view(ref)
        except KeyError:
            raise BackendError(ErrorCode.UNAVAILABLE, f"the shared memory of input '{ref.name}' is gone") from None
        except ValueError as error:
            raise BackendError(ErrorCode.INVALID_ARG, str(error)) from None

    def array(self, ref: TensorRef) -> np.ndarray[Any, Any]:
        """A tensor to read: a view, or a copy where the bytes lie unaligned or are BYTES."""
        array = _as_array(ref, self.raw(ref))
        if ref.datatype == "BYTES":
            return array
        if not array.flags.aligned:
            copies.count("unaligned", ref.byte_size)
            return array.copy()
        array.flags.writeable = False
        return array

    def texts(self, ref: TensorRef) -> np.ndarray[Any, Any]:
        """A BYTES tensor as an array of `str`, for frameworks whose strings are text."""
        array = self.array(ref)
        try:
            array[...] = np.array([element.decode() for element in array.flat], dtype=np.object_).reshape(array.shape)
        except UnicodeDecodeError:
            raise BackendError(ErrorCode.INVALID_ARG, f"input '{ref.name}' has a string that is not UTF-8") from None
        return array

    def private(self, ref: TensorRef) -> np.ndarray[Any, Any]:
        """A tensor that the model may write to: nobody else sees it."""
        if ref.datatype == "BYTES":
            return self.array(ref)
        data = self.raw(ref)
        if ref.region.startswith(MARK):
            return _as_array(ref, data)
        if ref.data is None and ref.byte_size > COPY_LIMIT and ref.offset % ELEMENT_SIZE[ref.datatype] == 0:
            return _as_array(ref, self._regions.private(ref))
        copies.count("private", ref.byte_size)
        return _as_array(ref, data).copy()


def _as_array(ref: TensorRef, data: Buffer) -> np.ndarray[Any, Any]:
    try:
        return as_array(ref.datatype, ref.shape, data)
    except MalformedBytes as error:
        raise MalformedInput(ref.name, error.what, error.details) from None
    except ValueError as error:
        raise BackendError(ErrorCode.INVALID_ARG, f"{error} for inference input '{ref.name}'") from None
