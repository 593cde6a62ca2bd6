"""A worker and the shared memory of clients: read and written in place, whatever clients do to it meanwhile."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from broker.messages import ClientRegion, ClientRegionGone, ErrorCode, Result, Target
from shm.ref import TensorRef
from shm.region import DIRECTORY
from tests.process.test_worker_python import CONFIG, ECHO, model
from tests.support.worker import FakeBroker, tensor

IDENTITY = {
    "max_batch_size": 8,
    "input": [tensor("IN", "TYPE_FP32", -1), tensor("TEXT", "TYPE_STRING", -1, optional=True)],
    "output": [tensor("OUT", "TYPE_FP32", -1), tensor("TEXT_OUT", "TYPE_STRING", -1)],
}
SIZE = 1 << 16


class Memory:
    """What a client has made and registered: region 1."""

    def __init__(self) -> None:
        self.key = f"/test-{uuid.uuid4().hex}"
        self.path = DIRECTORY / self.key[1:]
        self.path.write_bytes(bytes(SIZE))

    def region(self, number: int = 1, **changes: Any) -> ClientRegion:
        return ClientRegion(number, "system", self.key, 0, SIZE, 0, b"")._replace(**changes)

    def array(self, offset: int, count: int) -> np.ndarray[Any, Any]:
        return np.frombuffer(self.path.read_bytes(), np.float32, count, offset)


@pytest.fixture
def memory() -> Iterator[Memory]:
    made = Memory()
    yield made
    made.path.unlink(missing_ok=True)


def there(name: str, offset: int, count: int, region: int = 1) -> TensorRef:
    """An FP32 input that lies in a client's region."""
    return TensorRef(name, "FP32", (1, count), count * 4, None, f"@{region}", offset)


def has_open(broker: FakeBroker, path: Path) -> bool:
    """The worker has the file open or mapped."""
    descriptors = Path(f"/proc/{broker.process.pid}/fd")
    links = [os.readlink(entry) for entry in descriptors.iterdir() if entry.exists()]
    maps = Path(f"/proc/{broker.process.pid}/maps").read_text()
    return any(link.startswith(str(path)) for link in links) or str(path) in maps


def infer(broker: FakeBroker, *inputs: TensorRef, targets: tuple[Target, ...] = ()) -> Result:
    return broker.infer(*inputs, targets=targets)


@pytest.mark.parametrize("backend", ["identity", "python"])
def test_inputs_and_outputs_in_a_region(tmp_path: Path, memory: Memory, backend: str) -> None:
    values = np.arange(5000, dtype=np.float32)
    with memory.path.open("r+b") as file:
        os.pwrite(file.fileno(), values.tobytes(), 128)
    with FakeBroker() as broker:
        config = CONFIG if backend == "python" else IDENTITY
        broker.loaded(backend, model(tmp_path, ECHO), config)
        broker.send(memory.region())
        result = infer(broker, there("IN", 128, 5000), targets=(Target("OUT", "@1", 32768, 20000),))
        assert result.code == ErrorCode.OK, result.error
        (ref,) = result.outputs
        assert ref == TensorRef("OUT", "FP32", (1, 5000), 20000, None, "@1", 32768)
        np.testing.assert_array_equal(memory.array(32768, 5000), values)
        assert not any(memory.path.read_bytes()[52768:])
        back = infer(broker, there("IN", 128, 5000))
        np.testing.assert_array_equal(broker.arrays(back)["OUT"][0], values)
        assert has_open(broker, memory.path)
        assert str(memory.path) not in Path(f"/proc/{broker.process.pid}/maps").read_text()
        broker.send(ClientRegionGone(1))
        assert infer(broker, there("IN", 128, 5)).code == ErrorCode.UNAVAILABLE
        assert not has_open(broker, memory.path)


def test_strings(tmp_path: Path, memory: Memory) -> None:
    with memory.path.open("r+b") as file:
        os.pwrite(file.fileno(), b"\2\0\0\0ab\1\0\0\0c", 3)
    text = TensorRef("TEXT", "BYTES", (1, 2), 11, None, "@1", 3)
    with FakeBroker() as broker:
        broker.loaded("identity", tmp_path, IDENTITY)
        broker.send(memory.region())
        result = infer(broker, there("IN", 100, 1), text, targets=(Target("TEXT_OUT", "@1", 50, 11),))
        assert result.code == ErrorCode.OK, result.error
        assert memory.path.read_bytes()[50:61] == b"\2\0\0\0ab\1\0\0\0c"


def test_an_output_that_is_too_large_fails_its_request_alone(tmp_path: Path, memory: Memory) -> None:
    with FakeBroker() as broker:
        broker.loaded("identity", tmp_path, IDENTITY)
        broker.send(memory.region())
        result = infer(broker, there("IN", 0, 2), targets=(Target("OUT", "@1", 0, 4),))
        assert (result.code, result.error) == (
            ErrorCode.INTERNAL,
            "shared memory size specified with the request for output 'OUT' (4 bytes) should be at least 8 bytes to "
            "hold the results",
        )
        assert infer(broker, there("IN", 0, 2), targets=(Target("OUT", "@1", 0, 8),)).code == ErrorCode.OK


def test_a_client_that_makes_its_region_smaller(tmp_path: Path, memory: Memory) -> None:
    with FakeBroker() as broker:
        broker.loaded("identity", tmp_path, IDENTITY)
        broker.send(memory.region())
        assert infer(broker, there("IN", 0, 1000)).code == ErrorCode.OK
        os.truncate(memory.path, 2000)
        for result in (
            infer(broker, there("IN", 0, 1000)),
            infer(broker, there("IN", 3000, 1000)),
            infer(broker, there("IN", 0, 400), targets=(Target("OUT", "@1", 1000, 1600),)),
        ):
            assert result.code == ErrorCode.INVALID_ARG
            assert "was made smaller after it had been registered" in result.error
        assert memory.path.stat().st_size == 2000
        assert infer(broker, there("IN", 0, 500)).code == ErrorCode.OK


def test_what_is_not_the_clients_memory_is_not_opened(tmp_path: Path, memory: Memory) -> None:
    link = DIRECTORY / f"{memory.path.name}-link"
    link.symlink_to("/etc/passwd")
    try:
        with FakeBroker() as broker:
            broker.loaded("identity", tmp_path, IDENTITY)
            broker.infer(broker.ref("IN", np.ones((1, 1000), np.float32)))
            keys = [
                link.name,
                "/nothing-there",
                "/../../etc/passwd",
                "/a/b",
                "/..",
                "",
                f"/tidepool-{broker.server}-w-0",
            ]
            for number, key in enumerate(keys, 2):
                broker.send(memory.region(number, key=key))
                result = infer(broker, there("IN", 0, 1, number))
                assert (result.code, result.error) == (
                    ErrorCode.INTERNAL,
                    f"Unable to open shared memory region: '{key}'",
                )
    finally:
        link.unlink()


def test_cuda_memory_without_a_gpu(tmp_path: Path, memory: Memory) -> None:
    with FakeBroker() as broker:
        broker.loaded("identity", tmp_path, IDENTITY)
        broker.send(memory.region(kind="cuda", handle=bytes(64)))
        result = infer(broker, there("IN", 0, 1))
        assert result.code == ErrorCode.UNSUPPORTED
        assert result.error.startswith("CUDA shared memory ")
