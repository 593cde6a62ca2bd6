"""System shared memory of a client's own, made and registered with tritonclient, and tensors that lie in it."""

import contextlib
import secrets
from types import TracebackType
from typing import Any

import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
import tritonclient.utils.shared_memory as memory
from tritonclient.utils import InferenceServerException, np_to_triton_dtype, serialize_byte_tensor

from tests.support.clients import Array, Client


class Region:
    """A region that a client has made and registered under `name`: inputs in its first half, outputs in the second.

    As a context manager it is unregistered and removed in the end.
    """

    def __init__(self, client: Client, byte_size: int) -> None:
        self.client = client
        self.middle = byte_size // 2
        self.module: Any = http_client if client.protocol == "http" else grpc_client
        self.name = f"r{secrets.token_hex(4)}"
        self.key = f"/{self.name}"
        self.handle = memory.create_shared_memory_region(self.name, self.key, byte_size)
        client.raw.register_system_shared_memory(self.name, self.key, byte_size)

    def input(self, array: Array, name: str = "IN") -> Any:
        """An input that lies at the beginning."""
        datatype = np_to_triton_dtype(array.dtype)
        data = serialize_byte_tensor(array) if datatype == "BYTES" else array
        memory.set_shared_memory_region(self.handle, [data])
        tensor = self.module.InferInput(name, list(array.shape), datatype)
        tensor.set_shared_memory(self.name, len(data.item()) if datatype == "BYTES" else data.nbytes)
        return tensor

    def output(self, byte_size: int, name: str = "OUT") -> Any:
        """A wish for an output in the second half."""
        wanted = self.module.InferRequestedOutput(name)
        wanted.set_shared_memory(self.name, byte_size, self.middle)
        return wanted

    def read(self, datatype: Any, shape: list[int]) -> Array:
        """What lies in the second half: a view, to be gone before the region is."""
        array: Array = memory.get_contents_as_numpy(self.handle, datatype, shape, self.middle)
        return array

    def __enter__(self) -> "Region":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(InferenceServerException):
            self.client.raw.unregister_system_shared_memory(self.name)
        memory.destroy_shared_memory_region(self.handle)
