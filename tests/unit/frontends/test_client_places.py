"""What clients may register, and references into what they have registered."""

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.messages import ErrorCode, Target
from frontends import shared_memory
from frontends.errors import RequestError
from shm.ref import TensorRef

SHM = Path("/dev/shm")


@pytest.fixture
def key() -> Iterator[str]:
    """The key of an object of 100 bytes."""
    name = f"test-{secrets.token_hex(8)}"
    (SHM / name).write_bytes(bytes(100))
    yield f"/{name}"
    (SHM / name).unlink()


def refusal(key: str, offset: int = 0, byte_size: int = 1) -> tuple[int, str]:
    with pytest.raises(RequestError) as caught:
        shared_memory.check_system("r", key, offset, byte_size)
    return caught.value.code, caught.value.message


def test_an_object_of_ones_own(key: str) -> None:
    for good, offset, byte_size in ((key, 0, 100), (key[1:], 0, 1), (f"//{key}", 99, 1)):
        shared_memory.check_system("r", good, offset, byte_size)
    for offset, byte_size in ((0, 101), (100, 1), (0, 0), (2**64 - 1, 2**64 - 1)):
        expected = (ErrorCode.INVALID_ARG, "failed to register shared memory region 'r': invalid args")
        assert refusal(key, offset, byte_size) == expected


@pytest.mark.parametrize("bad", ["", "/", "///", "/a/b", "/../etc/passwd", "..", "/.", "a\0b", "/a/", "tidepool/../x"])
def test_keys_that_could_lead_elsewhere(bad: str) -> None:
    text = f"cannot register shared memory region 'r' - invalid shm key '{bad}'"
    assert refusal(bad) == (ErrorCode.INVALID_ARG, text)


@pytest.mark.parametrize("prefix", ["tidepool-", "triton_python_backend_shm_region_"])
def test_reserved_keys(prefix: str) -> None:
    code, text = refusal(f"/{prefix}x")
    assert code == ErrorCode.INVALID_ARG
    assert f"as the key contains the reserved prefix '{prefix}'" in text


def test_objects_that_cannot_be_opened(key: str) -> None:
    assert refusal("/no-such-object") == (
        ErrorCode.INTERNAL,
        "Unable to open shared memory region: '/no-such-object'",
    )
    assert refusal("x" * 300)[0] == ErrorCode.INTERNAL
    link, pipe, directory = (f"{key[1:]}-{kind}" for kind in ("link", "pipe", "directory"))
    (SHM / link).symlink_to(SHM / key[1:])
    os.mkfifo(SHM / pipe)
    (SHM / directory).mkdir()
    try:
        for other in (link, pipe, directory):
            assert refusal(other) == (ErrorCode.INTERNAL, f"Unable to open shared memory region: '{other}'")
    finally:
        (SHM / link).unlink()
        (SHM / pipe).unlink()
        (SHM / directory).rmdir()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a file of another user")
def test_objects_of_other_users(key: str) -> None:
    os.chown(SHM / key[1:], 12345, -1)
    code, text = refusal(key)
    assert code == ErrorCode.INVALID_ARG
    assert f"'{key}' belongs to another user" in text


def test_cuda_handles() -> None:
    shared_memory.check_cuda("r", bytes(64), is_gpu_present=True)
    for handle, is_gpu_present, text in (
        (bytes(64), False, "failed to register CUDA shared memory region: 'r', GPUs not supported"),
        (bytes(63), True, "failed to register shared memory region: invalid args"),
    ):
        with pytest.raises(RequestError) as caught:
            shared_memory.check_cuda("r", handle, is_gpu_present)
        assert (caught.value.code, caught.value.message) == (ErrorCode.INVALID_ARG, text)


def test_client_memory_can_be_switched_off() -> None:
    shared_memory.refuse_if_disabled(is_allowed=True)
    with pytest.raises(RequestError) as caught:
        shared_memory.refuse_if_disabled(is_allowed=False)
    assert (caught.value.code, caught.value.message) == (
        ErrorCode.UNSUPPORTED,
        "Client shared memory is disabled. Start the server with '--allow-client-shm=true' to enable.",
    )


def test_references() -> None:
    ref = shared_memory.reference("I", "FP32", (2,), "r", 4, 8)
    assert ref == TensorRef("I", "FP32", (2,), 8, None, "@r", 4)
    assert shared_memory.is_in_client_memory(ref)
    assert not shared_memory.is_in_client_memory(ref._replace(region="tidepool-1-2-3"))
    assert shared_memory.target("O", "r", 4, 8) == Target("O", "@r", 4, 8)
