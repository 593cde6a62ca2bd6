"""The payload matrix: whatever way a tensor of 1 byte to 1 GiB travels, its bytes come back and the memory too."""

import itertools
from collections.abc import Iterator

import numpy as np
import psutil
import pytest

from shm.region import TABLE
from tests.support.clients import Array, Client
from tests.support.regions import Region
from tests.support.repository import write_echo, write_identity
from tests.support.server import Server
from tests.support.waiting import until

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
SIZES = (1, KIB, KIB + 1, 64 * KIB, MIB, 8 * MIB, 16 * MIB + 1)
"""Bytes, around the limits of what travels inside a message and of the first region of an arena."""
LARGE = (64 * MIB, GIB)
JSON_SIZES = (1, KIB, MIB, 8 * MIB)
"""Bytes of the tensor's text."""
JSON_LARGE = (64 * MIB,)
WAYS = ("http", "grpc", "http memory", "grpc memory")
"""In the body, or in system shared memory of the client's."""
MODELS = ("identity", "echo")
LEFT, LEFT_LARGE = 64 * MIB, 512 * MIB
"""Bytes of its own that a process may keep for next time: gRPC's threads have heaps that do not shrink at once."""
SHARED = "shared memory"
SECONDS = 300.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("payloads"), "", f"--http-max-input-size={2 * GIB}")
    write_identity(server.repository, "identity", data_type="TYPE_UINT8")
    write_echo(server.repository, "echo", data_type="TYPE_UINT8")
    with server:
        yield server


@pytest.fixture(scope="module")
def idle(server: Server) -> dict[str, int]:
    """What the server takes when it has nothing to do, once each way has been taken."""
    for way, model in itertools.product(WAYS, MODELS):
        round_trip(server, way, model, 64 * KIB)
    until(lambda: server.shm_bytes() == TABLE * len(server.shm_regions()), 15, "its regions hold nothing")
    return taken(server)


def taken(server: Server) -> dict[str, int]:
    """Bytes of shared memory, and of memory of its own by process."""
    processes = [psutil.Process(server.process.pid), *server.children()]
    own = {f"{process.pid} {process.name()}": process.memory_full_info().uss for process in processes}
    return {SHARED: server.shm_bytes(), **own}


@pytest.fixture(autouse=True)
def _memory_comes_back(request: pytest.FixtureRequest, server: Server, idle: dict[str, int]) -> Iterator[None]:
    yield
    left = LEFT_LARGE if request.node.get_closest_marker("large") else LEFT

    def kept() -> dict[str, int]:
        more = {name: now - idle[name] for name, now in taken(server).items()}
        return {name: count for name, count in more.items() if count > (0 if name == SHARED else left)}

    try:
        until(lambda: not kept(), 15, "the memory has been given back")
    except AssertionError as error:
        raise AssertionError(f"bytes that were not given back: {kept()}") from error


def round_trip(server: Server, way: str, model: str, size: int) -> None:
    question = np.frombuffer(np.random.default_rng(size).bytes(size), np.uint8)
    protocol, *memory = way.split()
    with Client(protocol, server, SECONDS) as client:
        if memory:
            through_memory(client, model, question)
        else:
            assert np.array_equal(client.infer(model, {"IN": question})["OUT"], question)


def through_memory(client: Client, model: str, question: Array) -> None:
    with Region(client, 2 * question.nbytes) as region:
        client.raw.infer(model, [region.input(question)], outputs=[region.output(question.nbytes)])
        assert np.array_equal(region.read(np.uint8, [question.size]), question)


def round_trip_of_json(server: Server, size: int) -> None:
    """Numbers of three digits, each with a comma: `size` bytes of text."""
    question = np.random.default_rng(size).integers(100, 256, max(1, size // 4), np.uint8)
    with Client("http", server, SECONDS) as client:
        answer = client.infer("identity", {"IN": question}, is_binary=False)["OUT"]
        assert np.array_equal(answer, question)


@pytest.mark.parametrize("way", WAYS)
def test_payloads_come_back_unchanged(server: Server, way: str) -> None:
    for model, size in itertools.product(MODELS, SIZES):
        round_trip(server, way, model, size)


def test_payloads_in_json_come_back_unchanged(server: Server) -> None:
    for size in JSON_SIZES:
        round_trip_of_json(server, size)


@pytest.mark.large
@pytest.mark.timeout(900)
@pytest.mark.parametrize("size", LARGE)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("way", WAYS)
def test_large_payloads_come_back_unchanged(server: Server, way: str, model: str, size: int) -> None:
    round_trip(server, way, model, size)


@pytest.mark.large
@pytest.mark.timeout(900)
@pytest.mark.parametrize("size", JSON_LARGE)
def test_large_payloads_in_json_come_back_unchanged(server: Server, size: int) -> None:
    round_trip_of_json(server, size)
