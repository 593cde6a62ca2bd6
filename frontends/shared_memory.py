"""Shared memory that clients register: what may be registered, and references into it.

Workers read and write this memory; a frontend only looks whether it is there and passes references on. Whether a
region of a name is registered, and large enough, the broker says.
"""

import os
import stat
from pathlib import Path

from broker.client import Client
from broker.messages import ErrorCode, GetRegionStatus, RegisterRegion, Target
from frontends.errors import RequestError
from shm.ref import TensorRef

MARK = "@"
"""Begins the region of a reference to client memory."""
CUDA_HANDLE = 64
"""Bytes of a cudaIpcMemHandle_t."""

_SHM = Path("/dev/shm")
_RESERVED = ("triton_python_backend_shm_region_", "tidepool-")


def refuse_if_disabled(is_allowed: bool) -> None:
    """Raise RequestError unless the server lets clients register (and unregister) memory."""
    if not is_allowed:
        raise RequestError(
            ErrorCode.UNSUPPORTED,
            "Client shared memory is disabled. Start the server with '--allow-client-shm=true' to enable.",
        )


async def register(client: Client, wanted: RegisterRegion) -> None:
    """Have the broker register a region, after a look at the memory. Raises RequestError.

    That the name is taken already is said before anything that is wrong with the memory.
    """
    try:
        if wanted.kind == "system":
            check_system(wanted.name, wanted.key, wanted.offset, wanted.byte_size)
        else:
            check_cuda(wanted.name, wanted.handle, is_gpu_present())
    except RequestError:
        for kind in ("system", "cuda"):
            number = client.number()
            registered = (await client.ask(GetRegionStatus(number, "", kind), number)).content
            if any(region["name"] == wanted.name for region in registered or ()):
                text = f"shared memory region '{wanted.name}' already in manager"
                raise RequestError(ErrorCode.ALREADY_EXISTS, text) from None
        raise
    answer = await client.ask(wanted, wanted.request)
    if answer.code != ErrorCode.OK:
        raise RequestError(answer.code, answer.error)


def check_system(name: str, key: str, offset: int, byte_size: int) -> None:
    """Look at the POSIX shared memory object that a client wants to register as `name`. Raises RequestError.

    It has to exist, belong to the server's own user and hold `byte_size` bytes from `offset`. Keys are refused that
    could lead out of /dev/shm or to memory that is not the client's.
    """
    path = _path(name, key)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        raise _unopenable(key) from None
    try:
        found = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise _unopenable(key)
    if found.st_uid != os.geteuid():
        raise RequestError(
            ErrorCode.INVALID_ARG,
            f"cannot register shared memory region '{name}': '{key}' belongs to another user, run the client as the "
            "user of the server",
        )
    if not byte_size or offset + byte_size > found.st_size:
        raise RequestError(ErrorCode.INVALID_ARG, f"failed to register shared memory region '{name}': invalid args")


def check_cuda(name: str, handle: bytes, is_gpu_present: bool) -> None:
    """Look at the CUDA IPC handle that a client wants to register as `name`. Raises RequestError."""
    if not is_gpu_present:
        text = f"failed to register CUDA shared memory region: '{name}', GPUs not supported"
        raise RequestError(ErrorCode.INVALID_ARG, text)
    if len(handle) != CUDA_HANDLE:
        raise RequestError(ErrorCode.INVALID_ARG, "failed to register shared memory region: invalid args")


def is_gpu_present() -> bool:
    """Whether this machine has an NVIDIA GPU."""
    return any(Path("/dev").glob("nvidia[0-9]*"))


def reference(name: str, datatype: str, shape: tuple[int, ...], region: str, offset: int, byte_size: int) -> TensorRef:
    """An input that lies in the registered `region`."""
    return TensorRef(name, datatype, shape, byte_size, None, MARK + region, offset)


def target(output: str, region: str, offset: int, byte_size: int) -> Target:
    """Where an output is to be written: in the registered `region`."""
    return Target(output, MARK + region, offset, byte_size)


def is_in_client_memory(ref: TensorRef) -> bool:
    """Whether an output has been written to its target: its bytes are not sent."""
    return ref.region.startswith(MARK)


def _path(name: str, key: str) -> Path:
    bare = key.lstrip("/")
    if not bare or "/" in bare or "\0" in bare or bare in {".", ".."}:
        text = f"cannot register shared memory region '{name}' - invalid shm key '{key}'"
        raise RequestError(ErrorCode.INVALID_ARG, text)
    for prefix in _RESERVED:
        if bare.startswith(prefix):
            raise RequestError(
                ErrorCode.INVALID_ARG,
                f"cannot register shared memory region '{name}' with key '{key}' as the key contains the reserved "
                f"prefix '{prefix}'",
            )
    return _SHM / bare


def _unopenable(key: str) -> RequestError:
    return RequestError(ErrorCode.INTERNAL, f"Unable to open shared memory region: '{key}'")
