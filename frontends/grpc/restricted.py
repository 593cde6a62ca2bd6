"""Restricted protocols: which category each RPC belongs to, and the refusal of clients without the header."""

from collections.abc import Mapping
from typing import Any

from broker.messages import ErrorCode
from frontends.errors import RequestError
from frontends.grpc.requests import Metadata
from frontends.restricted import Restrictions

CATEGORIES = {
    "ServerLive": "health",
    "ServerReady": "health",
    "ModelReady": "health",
    "Check": "health",
    "ServerMetadata": "metadata",
    "ModelMetadata": "metadata",
    "ModelInfer": "inference",
    "ModelStreamInfer": "inference",
    "ModelConfig": "model-config",
    "ModelStatistics": "statistics",
    "RepositoryIndex": "model-repository",
    "RepositoryModelLoad": "model-repository",
    "RepositoryModelUnload": "model-repository",
    "SystemSharedMemoryStatus": "shared-memory",
    "SystemSharedMemoryRegister": "shared-memory",
    "SystemSharedMemoryUnregister": "shared-memory",
    "CudaSharedMemoryStatus": "shared-memory",
    "CudaSharedMemoryRegister": "shared-memory",
    "CudaSharedMemoryUnregister": "shared-memory",
    "TraceSetting": "trace",
    "LogSettings": "logging",
}
"""By the name of the RPC, of both services."""


def restrictions(options: Mapping[str, Any]) -> Restrictions:
    """From the server's options."""
    return Restrictions.parse(options["grpc_restricted_protocol"], "protocol", "triton-grpc-protocol-")


def check(restrictions: Restrictions, rpc: str, metadata: Metadata) -> None:
    """Raise RequestError unless a call of the RPC with this metadata is allowed."""
    text = restrictions.refusal(CATEGORIES[rpc], metadata)
    if text is not None:
        raise RequestError(ErrorCode.UNAVAILABLE, text)
