"""The RPCs of the shared memory extensions: regions that clients register, system (POSIX) and CUDA alike."""

from typing import Any

from broker.messages import ErrorCode, GetRegionStatus, RegisterRegion, UnregisterRegion
from frontends.errors import RequestError
from frontends.grpc.messages import ProtoMessage
from frontends.grpc.queries import Rpc, query
from frontends.grpc.service import Service
from frontends.shared_memory import refuse_if_disabled, register


def _status(kind: str) -> Rpc:
    return query(
        lambda number, request: GetRegionStatus(number, request.name, kind),
        lambda content: {"regions": {region["name"]: region for region in content}},
    )


def _unregister(kind: str) -> Rpc:
    async def call(service: Service, request: ProtoMessage) -> dict[str, Any]:
        refuse_if_disabled(service.allows_client_memory)
        await service.ask(lambda number: UnregisterRegion(number, request.name, kind))
        return {}

    return call


async def _register_system(service: Service, request: ProtoMessage) -> dict[str, Any]:
    return await _register(
        service, RegisterRegion(0, request.name, "system", request.key, request.offset, request.byte_size, 0, b"")
    )


async def _register_cuda(service: Service, request: ProtoMessage) -> dict[str, Any]:
    return await _register(
        service,
        RegisterRegion(0, request.name, "cuda", "", 0, request.byte_size, request.device_id, request.raw_handle),
    )


async def _register(service: Service, wanted: RegisterRegion) -> dict[str, Any]:
    refuse_if_disabled(service.allows_client_memory)
    if not wanted.name:
        text = f"'region name' is necessary to register {wanted.kind} shared memory region"
        raise RequestError(ErrorCode.INVALID_ARG, text)
    await register(service.client, wanted._replace(request=service.client.number()))
    return {}


REGIONS: dict[str, Rpc] = {
    "SystemSharedMemoryStatus": _status("system"),
    "SystemSharedMemoryRegister": _register_system,
    "SystemSharedMemoryUnregister": _unregister("system"),
    "CudaSharedMemoryStatus": _status("cuda"),
    "CudaSharedMemoryRegister": _register_cuda,
    "CudaSharedMemoryUnregister": _unregister("cuda"),
}
"""By the name of the RPC in `inference.GRPCInferenceService`."""
