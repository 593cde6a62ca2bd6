"""The messages of the gRPC services, built from the compiled descriptor set in a pool of their own.

Generated modules would register themselves in the process-wide pool, where Triton's own client registers files of
the same package: whichever came second would fail.
"""

from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from broker.messages import ErrorCode
from frontends.errors import RequestError

COMPILED = Path(__file__).with_name("inference.binpb")

ProtoMessage: TypeAlias = Any
"""An instance of a class made by `message`: its fields are known at run time only."""


@cache
def pool() -> DescriptorPool:
    """The pool that holds both services."""
    pool = DescriptorPool()
    for file in FileDescriptorSet.FromString(COMPILED.read_bytes()).file:
        pool.Add(file)
    return pool


@cache
def message(name: str) -> type[Any]:
    """The class of a message by its full name, such as `inference.ModelInferRequest`."""
    return GetMessageClass(pool().FindMessageTypeByName(name))


def parse(message_class: type[Any], data: bytes) -> ProtoMessage:
    """The message in `data`. Raises RequestError."""
    try:
        return message_class.FromString(data)
    except (DecodeError, UnicodeDecodeError) as error:  # the second of protobuf's implementation in Python
        raise RequestError(ErrorCode.INTERNAL, f"failed to parse the request message: {error}") from None
