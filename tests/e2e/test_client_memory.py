"""Tensors in memory that clients register, through the whole server, with tritonclient's own module for such memory."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from tests.support.clients import INVALID, NOT_FOUND, Client, status_of
from tests.support.regions import Region
from tests.support.server import Server

BYTES = 1 << 20
COUNT = 50_000
FLOATS = COUNT * 4


@pytest.fixture
def region(client: Client) -> Iterator[Region]:
    with Region(client, BYTES) as made:
        yield made


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
    tensor = region.module.InferInput("IN", list(array.shape), "FP32")
    tensor.set_data_from_numpy(array)
    return tensor


def test_strings(client: Client, region: Region) -> None:
    texts = np.array([b"one", b"", b"\xff\0 three"], dtype=np.object_)
    size = 4 * 3 + 3 + 8
    client.raw.infer("texts", [region.input(texts)], outputs=[region.output(size)])
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
