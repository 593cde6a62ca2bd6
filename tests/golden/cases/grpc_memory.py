"""System and CUDA shared memory over gRPC."""

from typing import Any

from tests.golden.build import fp32, one, proto_infer, proto_output, proto_tensor, rpc, service_pb2, strings
from tests.golden.scenario import Grpc, Memory, Scenario, Step

KEY = "/golden-00000000-grpc"
A = fp32(1, 2, 3, 4)
ZEROS = fp32(0, 0, 0, 0)


def register(name: str = "r", key: str = KEY, byte_size: int = 64, offset: int = 0) -> Grpc:
    """Register a system region."""
    return rpc(
        "SystemSharedMemoryRegister",
        service_pb2.SystemSharedMemoryRegisterRequest(name=name, key=key, byte_size=byte_size, offset=offset),
    )


def register_cuda(name: str = "r", handle: bytes = bytes(64), byte_size: int = 4) -> Grpc:
    """Register a CUDA region."""
    return rpc(
        "CudaSharedMemoryRegister",
        service_pb2.CudaSharedMemoryRegisterRequest(name=name, raw_handle=handle, byte_size=byte_size),
    )


def status(name: str = "", kind: str = "System") -> Grpc:
    """What is registered."""
    return rpc(f"{kind}SharedMemoryStatus", getattr(service_pb2, f"{kind}SharedMemoryStatusRequest")(name=name))


def unregister(name: str = "", kind: str = "System") -> Grpc:
    """The end of a region, or of all."""
    return rpc(f"{kind}SharedMemoryUnregister", getattr(service_pb2, f"{kind}SharedMemoryUnregisterRequest")(name=name))


def with_region(name: str, *steps: Step) -> Scenario:
    """Steps between the registration of `r` and its end."""
    created = Memory("create", KEY, A.ljust(64, b"\0"))
    return one(name, created, register(), *steps, unregister(), Memory("remove", KEY))


def region(**more: Any) -> dict[str, Any]:
    """Parameters of a tensor in `r`."""
    return {"shared_memory_region": "r", "shared_memory_byte_size": 16, **more}


def infer(*outputs: Any, raw: tuple[bytes, ...] = (ZEROS,), contents: Any = None, **more: Any) -> Grpc:
    """A request to add_sub with A in the region."""
    inputs = [proto_tensor("A", "FP32", [1, 4], contents, **region(**more)), proto_tensor("B", "FP32", [1, 4])]
    return rpc("ModelInfer", proto_infer("add_sub", inputs, raw, outputs))


SCENARIOS: list[Scenario] = [
    one("status_of_nothing", status()),
    one("status_unknown", status("none")),
    one("cuda_status_of_nothing", status(kind="Cuda")),
    one("cuda_status_unknown", status("none", "Cuda")),
    one("unregister_unknown", unregister("none")),
    one("cuda_unregister_unknown", unregister("none", "Cuda")),
    one("register_missing_object", register(key="/golden-00000000-none")),
    one("register_without_name", register(name="", key="/golden-00000000-none")),
    one("register_without_key", register(key="")),
    one("register_reserved", register(key="/triton_python_backend_shm_region_1")),
    one("cuda_register", register_cuda()),
    one("cuda_register_short_handle", register_cuda(handle=b"abc")),
    one("cuda_register_nothing", rpc("CudaSharedMemoryRegister")),
    one("cuda_unregister_all", unregister(kind="Cuda")),
    with_region("register_and_look", status(), status("r"), status("r", "Cuda")),
    with_region("register_twice", register(), register_cuda(), status()),
    with_region("register_beyond", register("s", byte_size=5000), register("s", offset=60)),
    with_region("unregister_one", unregister("r"), status()),
    with_region("unregister_through_cuda", unregister("r", "Cuda"), status()),
    with_region("input", infer()),
    with_region("input_and_raw_for_both", infer(raw=(A, ZEROS))),
    with_region("input_at_offset", infer(shared_memory_offset=4)),
    with_region("input_with_contents", infer(raw=(), contents={"fp32": [1, 2, 3, 4]})),
    with_region("input_size_mismatch", infer(shared_memory_byte_size=12)),
    with_region("input_offset_beyond", infer(shared_memory_offset=64)),
    with_region("input_size_beyond", infer(shared_memory_offset=56)),
    with_region("input_offset_negative", infer(shared_memory_offset=-4)),
    with_region("input_size_string", infer(shared_memory_byte_size="16")),
    with_region("input_region_number", infer(shared_memory_region=5)),
    with_region("input_offset_string", infer(shared_memory_offset="4")),
    one("input_unknown_region", infer()),
    with_region("output", infer(proto_output("SUM", **region(shared_memory_offset=16))), Memory("read", KEY)),
    with_region(
        "output_one_of_two",
        infer(proto_output("DIFFERENCE"), proto_output("SUM", **region(shared_memory_offset=16))),
        Memory("read", KEY),
    ),
    with_region("output_too_small", infer(proto_output("SUM", **region(shared_memory_byte_size=8)))),
    with_region("output_size_beyond", infer(proto_output("SUM", **region(shared_memory_offset=56)))),
    with_region("output_and_classes", infer(proto_output("SUM", classification=1, **region()))),
    with_region(
        "output_bytes",
        rpc(
            "ModelInfer",
            proto_infer(
                "identity_bytes",
                [proto_tensor("IN", "BYTES", [1])],
                [strings(b"hi")],
                [proto_output("OUT_IN", **region())],
            ),
        ),
        Memory("read", KEY),
    ),
    one(
        "output_unknown_region",
        rpc(
            "ModelInfer",
            proto_infer(
                "add_sub", [proto_tensor(n, "FP32", [1, 4]) for n in "AB"], [A, A], [proto_output("SUM", **region())]
            ),
        ),
    ),
]
