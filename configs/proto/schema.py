"""The descriptors of our configuration messages, in a pool of their own.

A generated module would register itself in the process-wide pool, where Triton's own client registers a file
of the same package: whichever came second would fail. So the compiled descriptor set is loaded here instead.
"""

from functools import cache
from pathlib import Path

from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool

COMPILED = Path(__file__).with_name("config.binpb")


@cache
def _pool() -> DescriptorPool:
    pool = DescriptorPool()
    for file in FileDescriptorSet.FromString(COMPILED.read_bytes()).file:
        pool.Add(file)
    return pool


def message(name: str) -> Descriptor:
    """The descriptor of a message by its full name, such as `inference.ModelConfig`."""
    return _pool().FindMessageTypeByName(name)
