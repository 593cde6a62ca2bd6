"""What decides the answer to a request, but for the version that answers: the response cache's key. Pure.

Not in it: the request's id, priority and timeout, which are about its way, and its trace.
"""

import hashlib
from collections.abc import Callable

import msgspec

from broker.messages import Infer
from shm.arena import Buffer
from shm.ref import TensorRef


def digest(infer: Infer, read: Callable[[TensorRef], Buffer]) -> bytes:
    """32 bytes; `read` gives the bytes of an input. None for what cannot be packed: that is refused when it is sent."""
    description = [
        infer.is_raw,
        infer.outputs,
        sorted(infer.parameters.items()),
        infer.correlation_id,
        infer.flags,
        [(ref.name, ref.datatype, ref.shape, ref.byte_size) for ref in infer.inputs],
    ]
    try:
        packed = msgspec.msgpack.encode(description)
    except (TypeError, ValueError, OverflowError):
        return b""
    hashed = hashlib.sha256(len(packed).to_bytes(8, "little"), usedforsecurity=False)
    hashed.update(packed)
    for ref in infer.inputs:
        hashed.update(read(ref))
    return hashed.digest()
