"""Options of tritonserver's that do nothing here: accepted with a warning, or refused when an answer would differ."""

from dataclasses import dataclass
from typing import Any

from configs.options import Option, Scalar

_WITHOUT_EFFECT = "Flags of tritonserver that have no effect here"
_REFUSED = "Flags of tritonserver that are refused"


@dataclass(frozen=True)
class Foreign:
    """`harmless` values ask for what happens anyway: they are accepted in silence."""

    option: Option
    refused: bool
    harmless: tuple[Any, ...]


def _inert(name: str, kind: type[Scalar], why: str, *harmless: Scalar, repeated: bool = False) -> Foreign:
    return Foreign(Option(name, kind, why, _WITHOUT_EFFECT, repeated=repeated), False, harmless)


def _refused(name: str, kind: type[Scalar], why: str, *harmless: Scalar, repeated: bool = False) -> Foreign:
    return Foreign(Option(name, kind, why, _REFUSED, repeated=repeated), True, harmless)


_THREADS = "Workers and frontends are processes, there is no such thread pool."
_GPU_MEMORY = "Frameworks allocate GPU and pinned memory themselves, in each worker."

FOREIGN: tuple[Foreign, ...] = (
    _inert("model_load_retry_count", int, "A worker that fails to load is restarted with growing pauses.", 0),
    _inert("min_supported_compute_capability", float, "The compute capability of GPUs is not looked at."),
    _inert("enable_peer_access", bool, "GPU workers do not exchange tensors directly.", True),
    _inert("http_thread_count", int, _THREADS + " See --http-frontends."),
    _inert("grpc_infer_thread_count", int, _THREADS + " See --grpc-frontends."),
    _inert("grpc_infer_allocation_pool_size", int, "Request objects are not pooled."),
    _inert("grpc_max_response_pool_size", int, "Response objects are not pooled."),
    _inert("repoagent_directory", str, "The repository agents are part of the server, no library is loaded."),
    _inert("cache_directory", str, "Caches are part of the server, no library is loaded."),
    _inert("pinned_memory_pool_byte_size", int, _GPU_MEMORY),
    _inert("cuda_memory_pool_byte_size", str, _GPU_MEMORY, repeated=True),
    _inert("cuda_virtual_address_size", str, _GPU_MEMORY, repeated=True),
    _inert("buffer_manager_thread_count", int, _THREADS, 0),
    _refused("model_load_gpu_limit", str, "Limits of GPU memory are not built yet.", repeated=True),
    _inert("sagemaker_thread_count", int, _THREADS),
    _inert("vertex_ai_thread_count", int, _THREADS),
)
