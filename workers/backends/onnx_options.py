"""What a model's configuration asks of ONNX Runtime: session options and execution providers. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from broker.messages import ErrorCode
from workers.errors import BackendError
from workers.model import ModelSpec

Provider: TypeAlias = tuple[str, dict[str, str]]
"""The name of an execution provider, and its options."""

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
TENSORRT, OPENVINO = "TensorrtExecutionProvider", "OpenVINOExecutionProvider"

_LEVELS = {0: "ORT_ENABLE_ALL", -1: "ORT_ENABLE_BASIC", 1: "ORT_ENABLE_EXTENDED", 2: "ORT_DISABLE_ALL"}
_SHRINKAGE = "memory.enable_memory_arena_shrinkage"
_REMEDIES = {
    CUDA: "no CUDA: pip install 'tidepool[gpu]' in place of onnxruntime",
    TENSORRT: "no TensorRT: pip install 'tidepool[gpu]' in place of onnxruntime",
    OPENVINO: "no OpenVINO: pip install onnxruntime-openvino in place of onnxruntime",
}

# Parameters of a model that became options of CUDA's provider: their names there, and what the numbers mean.
_CUDA_PARAMETERS: dict[str, tuple[str, ...]] = {
    "cudnn_conv_algo_search": ("EXHAUSTIVE", "HEURISTIC", "DEFAULT"),
    "gpu_mem_limit": (),
    "arena_extend_strategy": ("kNextPowerOfTwo", "kSameAsRequested"),
    "do_copy_in_default_stream": (),
}
_PRECISIONS = {"FP32": {}, "FP16": {"trt_fp16_enable": "1"}, "BF16": {"trt_bf16_enable": "1"}}
_PRECISIONS["INT8"] = {"trt_int8_enable": "1"}
_TENSORRT_NAMES = {
    "max_workspace_size_bytes": "trt_max_workspace_size",
    "int8_calibration_table_name": "trt_int8_calibration_table_name",
}
_TENSORRT_SWITCHES = {
    "int8_use_native_calibration_table": "trt_int8_use_native_calibration_table",
    **{
        f"trt_{name}": f"trt_{name}"
        for name in (
            "build_heuristics_enable",
            "context_memory_sharing_enable",
            "cuda_graph_enable",
            "detailed_build_log",
            "dla_enable",
            "dump_ep_context_model",
            "dump_subgraphs",
            "engine_cache_enable",
            "force_sequential_engine_build",
            "force_timing_cache",
            "layer_norm_fp32_fallback",
            "sparsity_enable",
            "timing_cache_enable",
        )
    },
}
_TENSORRT_VALUES = {
    f"trt_{name}"
    for name in (
        "auxiliary_streams",
        "builder_optimization_level",
        "dla_core",
        "engine_cache_path",
        "engine_cache_prefix",
        "ep_context_embed_mode",
        "ep_context_file_path",
        "extra_plugin_lib_paths",
        "max_partition_iterations",
        "min_subgraph_size",
        "profile_max_shapes",
        "profile_min_shapes",
        "profile_opt_shapes",
        "tactic_sources",
        "timing_cache_path",
    )
}
_SWITCH = {"1": "1", "true": "1", "0": "0", "false": "0"}


class Plan(NamedTuple):
    """How to make a session. `level` is a name in `GraphOptimizationLevel`; `entries` and `run_entries` are of the
    session's and of each run's configuration."""

    intra_op_threads: int
    inter_op_threads: int
    is_parallel: bool
    has_arena: bool
    has_pattern: bool
    level: str
    entries: dict[str, str]
    run_entries: dict[str, str]
    providers: list[Provider]
    libraries: list[str]  # of operators


def plan(model: ModelSpec, threads: int, available: Sequence[str]) -> Plan:
    """What to do for a model; `threads` are an instance's unless it says otherwise. Raises BackendError.

    `available` are the execution providers that the installed ONNX Runtime has.
    """
    intra, inter = _threads(model)
    level = int(_optimization(model).get("graph", {}).get("level", 0))
    shrinkage = model.parameter(_SHRINKAGE)
    return Plan(
        intra_op_threads=intra or threads,
        inter_op_threads=inter,
        is_parallel=bool(model.integer("execution_mode")),
        has_arena=model.flag("enable_mem_arena", True),
        has_pattern=model.flag("enable_mem_pattern", True),
        level=_LEVELS.get(level, _LEVELS[0]),
        entries={key: model.parameter(key) for key in model.config.get("parameters", {}) if key.startswith("session.")},
        run_entries={_SHRINKAGE: shrinkage} if shrinkage else {},
        providers=_providers(model, available),
        libraries=list(model.config.get("model_operations", {}).get("op_library_filename", ())),
    )


def check_providers(model: ModelSpec, wanted: Sequence[Provider], used: Sequence[str]) -> None:
    """Raise BackendError for a provider that did not get into the session: its libraries could not be loaded."""
    for name, _ in wanted:
        if name not in used:
            raise BackendError(
                ErrorCode.UNAVAILABLE,
                f"ONNX Runtime could not load its {name} for instance '{model.instance}': the lines before this one in "
                "the log name the library that is missing",
            )


def _threads(model: ModelSpec) -> tuple[int, int]:
    """For one operator, and for several at a time; 0: the default. A worker's pool is "global": it has one session."""
    keys = "intra_op_thread_count", "inter_op_thread_count"
    if _SWITCH.get(model.settings.get("enable-global-threadpool", "0").lower()) == "1":
        intra, inter = [_setting(model, key) for key in keys]
    else:
        intra, inter = [model.integer(key) for key in keys]
    return max(0, intra), max(0, inter)


def _setting(model: ModelSpec, key: str) -> int:
    text = model.settings.get(key, "0")
    try:
        return int(text)
    except ValueError:
        raise _refuse(f"--backend-config={model.backend},{key} is '{text}', expected a number") from None


def _optimization(model: ModelSpec) -> dict[str, Any]:
    found: dict[str, Any] = model.config.get("optimization", {})
    return found


# ------------------------------------------------------------------------------------------------- providers


def _providers(model: ModelSpec, available: Sequence[str]) -> list[Provider]:
    if model.kind not in {"CPU", "GPU"}:
        raise _refuse(f"instance '{model.instance}' of model '{model.name}' must be KIND_CPU or KIND_GPU")
    accelerators = _optimization(model).get("execution_accelerators", {})
    providers: list[Provider] = []
    if model.kind == "GPU":
        cuda = _cuda_parameters(model)
        for accelerator in accelerators.get("gpu_execution_accelerator", ()):
            name, parameters = accelerator["name"], accelerator.get("parameters", {})
            if name == "tensorrt":
                providers.append((TENSORRT, {**_tensorrt(parameters), "device_id": "0"}))
            elif name == "cuda":
                cuda |= parameters
            else:
                raise _unknown(name)
        providers.append((CUDA, {**cuda, "device_id": "0"}))
    for accelerator in accelerators.get("cpu_execution_accelerator", ()):
        if accelerator["name"] != "openvino":
            raise _unknown(accelerator["name"])
        providers.append((OPENVINO, {"device_type": "CPU", **accelerator.get("parameters", {})}))
    for name, _ in providers:
        if name not in available:
            what = "has kind KIND_GPU" if name == CUDA else f"asks for {name}"
            raise BackendError(
                ErrorCode.UNAVAILABLE,
                f"instance '{model.instance}' {what}, but this ONNX Runtime has {_REMEDIES[name]}",
            )
    return [*providers, (CPU, {})]


def _cuda_parameters(model: ModelSpec) -> dict[str, str]:
    """Options that are parameters of the model."""
    found = {}
    for key, meanings in _CUDA_PARAMETERS.items():
        text = model.parameter(key)
        if text and not meanings:
            found[key] = text
        elif text:
            if text not in map(str, range(len(meanings))):
                raise _refuse(f"parameter '{key}' is '{text}', expected 0 to {len(meanings) - 1}")
            found[key] = meanings[int(text)]
    return found


def _tensorrt(parameters: Mapping[str, str]) -> dict[str, str]:
    options: dict[str, str] = {}
    for key, value in parameters.items():
        if key == "precision_mode":
            if value not in _PRECISIONS:
                raise _refuse(f"unsupported precision mode '{value}' is requested")
            options |= _PRECISIONS[value]
        elif key in _TENSORRT_SWITCHES:
            if value.lower() not in _SWITCH:
                raise _refuse(f"failed to convert '{value}' to boolean (parameter '{key}')")
            options[_TENSORRT_SWITCHES[key]] = _SWITCH[value.lower()]
        elif key in _TENSORRT_NAMES or key in _TENSORRT_VALUES:
            options[_TENSORRT_NAMES.get(key, key)] = value
        else:
            raise _refuse(f"unknown parameter '{key}' is provided for TensorRT Execution Accelerator")
    return options


def _unknown(accelerator: str) -> BackendError:
    return _refuse(f"unknown Execution Accelerator '{accelerator}' is requested")


def _refuse(text: str) -> BackendError:
    return BackendError(ErrorCode.INVALID_ARG, text)
