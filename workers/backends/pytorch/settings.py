"""The parameters of a model that PyTorch itself hears of: read purely, then applied to the process."""

import json
from typing import Any, NamedTuple

import torch

from broker.messages import ErrorCode
from workers.errors import BackendError
from workers.model import ModelSpec

_SWITCHES = ("ENABLE_JIT_EXECUTOR", "ENABLE_JIT_PROFILING", "ENABLE_TENSOR_FUSER")
_COMPILE = "TORCH_COMPILE_OPTIONAL_PARAMETERS"
_COMPILE_KEYS = ("fullgraph", "dynamic", "backend", "mode", "options", "disable")


class Settings(NamedTuple):
    """What the parameters say. `interop_threads` 0 is PyTorch's own choice; `switches` are only those that are set."""

    threads: int
    interop_threads: int
    optimizes: bool
    has_cudnn: bool
    switches: tuple[tuple[str, bool], ...]
    is_inference_mode: bool
    cleans_cache: bool
    shares_weights: bool
    compile: dict[str, Any] | None


def read(model: ModelSpec) -> Settings:
    """Raises BackendError for values that cannot be understood."""
    model.flag("ENABLE_NVFUSER", False)  # PyTorch has no NVFuser any more
    return Settings(
        threads=_count(model, "INTRA_OP_THREAD_COUNT", "NUM_THREADS") or model.threads,
        interop_threads=_count(model, "INTER_OP_THREAD_COUNT", "NUM_INTEROP_THREADS"),
        optimizes=not model.flag("DISABLE_OPTIMIZED_EXECUTION", False),
        has_cudnn=not model.flag("DISABLE_CUDNN", False),
        switches=tuple((key, model.flag(key, True)) for key in _SWITCHES if model.parameter(key)),
        is_inference_mode=model.flag("INFERENCE_MODE", True),
        cleans_cache=model.flag("ENABLE_CACHE_CLEANING", False) and model.kind == "GPU",
        shares_weights=model.flag("ENABLE_WEIGHT_SHARING", False) and model.kind == "CPU",
        compile=_compile(model),
    )


def apply(settings: Settings) -> None:
    """Set up this process; before any other use of PyTorch, which counts its inter-op threads once."""
    torch.set_num_threads(settings.threads)
    if settings.interop_threads not in (0, torch.get_num_interop_threads()):
        torch.set_num_interop_threads(settings.interop_threads)
    torch._C._set_graph_executor_optimize(settings.optimizes)
    if not settings.has_cudnn:
        torch.backends.cudnn.enabled = False
    switches = {
        "ENABLE_JIT_EXECUTOR": torch._C._jit_set_profiling_executor,
        "ENABLE_JIT_PROFILING": torch._C._jit_set_profiling_mode,
        "ENABLE_TENSOR_FUSER": torch._C._jit_set_texpr_fuser_enabled,
    }
    for key, is_on in settings.switches:
        switches[key](is_on)


def _count(model: ModelSpec, *keys: str) -> int:
    """The first of these parameters that is set and above 0, else 0."""
    return next((count for count in map(model.integer, keys) if count > 0), 0)


def _compile(model: ModelSpec) -> dict[str, Any] | None:
    """The keyword arguments of `torch.compile`; None: the model is not to be compiled."""
    text = model.parameter(_COMPILE)
    if not text:
        return None
    try:
        options = json.loads(text)
    except ValueError as error:
        raise _wrong(f"is no JSON: {error}") from None
    if not isinstance(options, dict) or not options.keys() <= set(_COMPILE_KEYS):
        raise _wrong(f"must be an object with keys out of {', '.join(_COMPILE_KEYS)}, got {text}")
    return options


def _wrong(text: str) -> BackendError:
    return BackendError(ErrorCode.INVALID_ARG, f"parameter '{_COMPILE}' {text}")
