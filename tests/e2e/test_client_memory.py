"""Tensors in memory that clients register, through the whole server, with tritonclient's own module for such memory."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
import tritonclient.utils.shared_memory as memory
from tritonclient.utils import InferenceServerException, serialize_byte_tensor

from tests.support.clients import INVALID, NOT_FOUND, Client, status_of
from tests.support.server import Server

BYTES = 1 << 20
COUNT = 50_000
FLOATS = COUNT * 4


class Region:
    """A region that a client has made and registered under `name`: inputs in its first half, outputs in the second."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.name = f"r{secrets.token_hex(4)}"
        self.key = f"/{self.name}"
        self.handle = memory.create_shared_memory_region(self.name, self.key, BYTES)
        client.raw.register_system_shared_memory(self.name, self.key, BYTES)

    def input(self, array: np.ndarray[Any, Any], name: str = "IN", datatype: str = "FP32") -> Any:
        """An input that lies at the beginning."""
        data = serialize_byte_tensor(array) if datatype == "BYTES" else array
        memory.set_shared_memory_region(self.handle, [data])
        tensor = self._module.InferInput(name, list(array.shape), datatype)
        tensor.set_shared_memory(self.name, len(data.item()) if datatype == "BYTES" else data.nbytes)
        return tensor

    def output(self, byte_size: int, offset: int = BYTES // 2, name: str = "OUT") -> Any:
        """A wish for an output in the second half."""
        wanted = self._module.InferRequestedOutput(name)
        wanted.set_shared_memory(self.name, byte_size, offset)
        return wanted

    def read(self, datatype: Any, shape: list[int], offset: int = BYTES // 2) -> np.ndarray[Any, Any]:
        array: np.ndarray[Any, Any] = memory.get_contents_as_numpy(self.handle, datatype, shape, offset)
        return array

    @property
    def _module(self) -> Any:
        return http_client if self.client.protocol == "http" else grpc_client


@pytest.fixture
def region(client: Client) -> Iterator[Region]:
    made = Region(client)
    yield made
    with contextlib.suppress(InferenceServerException):
        client.raw.unregister_system_shared_memory(made.name)
    memory.destroy_shared_memory_region(made.handle)


def floats(count: int = COUNT) -> np.ndarray[Any, Any]:
    return np.random.default_rng(count).random(count, np.float32)


@pytest.mark.parametrize("model", ["identity", "echo"])
def test_in_and_out(client: Client, region: Region, model: str) -> None:
    for number in range(3):
        array = floats() + number
        client.raw.infer(model, [region.input(array)], outputs=[region.output(FLOATS)])
        np.testing.assert_array_equal(region.read(np.float32, [COUNT]), array)


def test_in_alone_and_out_alone(client: Client, region: Region) -> None:
    array = floats()
    result = client.raw.infer("echo", [region.input(array)])
    np.testing.assert_array_equal(result.as_numpy("OUT"), array)
    client.raw.infer("echo", [client_input(region, array + 1)], outputs=[region.output(FLOATS)])
    np.testing.assert_array_equal(region.read(np.float32, [COUNT]), array + 1)


def client_input(region: Region, array: np.ndarray[Any, Any]) -> Any:
    """The same tensor in the request's body."""
    tensor = region._module.InferInput("IN", list(array.shape), "FP32")
    tensor.set_data_from_numpy(array)
    return tensor


def test_strings(client: Client, region: Region) -> None:
    texts = np.array([b"one", b"", b"\xff\0 three"], dtype=np.object_)
    size = 4 * 3 + 3 + 8
    client.raw.infer("texts", [region.input(texts, datatype="BYTES")], outputs=[region.output(size)])
    assert region.read(np.object_, [3]).tolist() == texts.tolist()


def test_an_output_that_does_not_fit(client: Client, region: Region) -> None:
    array = floats(2)
    with pytest.raises(InferenceServerException) as raised:
        client.raw.infer("echo", [region.input(array)], outputs=[region.output(4)])
    assert status_of(raised.value) == {"http": "500", "grpc": "StatusCode.INTERNAL"}[client.protocol]
    assert raised.value.message() == (
        "shared memory size specified with the request for output 'OUT' (4 bytes) should be at least 8 bytes to hold "
        "the results"
    )
    assert not region.read(np.float32, [2]).any()


def test_a_client_that_truncates_its_region_harms_itself_alone(client: Client, region: Region, shared: Server) -> None:
    workers = shared.pids()
    array = floats()
    wanted = [region.input(array)]
    os.truncate(Path("/dev/shm") / region.name, 4096)
    with pytest.raises(InferenceServerException) as raised:
        client.raw.infer("echo", wanted)
    assert status_of(raised.value) == INVALID[client.protocol]
    assert "was made smaller after it had been registered" in raised.value.message()
    with pytest.raises(InferenceServerException, match="was made smaller after it had been registered"):
        client.raw.infer("identity", [client_input(region, array)], outputs=[region.output(FLOATS)])
    assert (Path("/dev/shm") / region.name).stat().st_size == 4096
    assert client.infer("echo", {"IN": array})["OUT"] is not None
    assert shared.pids() == workers


def test_a_region_that_is_gone(client: Client, region: Region) -> None:
    wanted = [region.input(floats())]
    client.raw.unregister_system_shared_memory(region.name)
    with pytest.raises(InferenceServerException) as raised:
        client.raw.infer("echo", wanted)
    assert status_of(raised.value) == NOT_FOUND[client.protocol]
    assert raised.value.message() == f"Unable to find shared memory region: '{region.name}'"
