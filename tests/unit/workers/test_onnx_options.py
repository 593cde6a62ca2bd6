"""What configurations ask of ONNX Runtime; needs neither it nor a GPU."""

from pathlib import Path
from typing import Any

import pytest

from broker.messages import ErrorCode
from tests.unit.workers.support import spec
from workers.backends.onnx_options import CPU, CUDA, OPENVINO, TENSORRT, Plan, check_providers, plan
from workers.errors import BackendError

ALL = [TENSORRT, CUDA, OPENVINO, CPU]


def planned(
    config: dict[str, Any] | None = None, kind: str = "CPU", available: list[str] = ALL, **parameters: str
) -> Plan:
    texts = {key: {"string_value": value} for key, value in parameters.items()}
    return plan(spec(Path(), {"parameters": texts, **(config or {})}, "onnxruntime", f"KIND_{kind}"), 3, available)


def accelerated(side: str, name: str, **parameters: str) -> dict[str, Any]:
    accelerators = {f"{side}_execution_accelerator": [{"name": name, "parameters": parameters}]}
    return {"optimization": {"execution_accelerators": accelerators}}


def refusal(code: ErrorCode = ErrorCode.INVALID_ARG, **arguments: Any) -> str:
    with pytest.raises(BackendError) as raised:
        planned(**arguments)
    assert raised.value.code == code
    return str(raised.value)


def test_what_nobody_has_asked_for_is_the_default() -> None:
    assert planned() == Plan(
        intra_op_threads=3,
        inter_op_threads=0,
        is_parallel=False,
        has_arena=True,
        has_pattern=True,
        level="ORT_ENABLE_ALL",
        entries={},
        run_entries={},
        providers=[(CPU, {})],
        libraries=[],
    )


@pytest.mark.parametrize(
    ("key", "value", "field", "expected"),
    [
        ("intra_op_thread_count", "5", "intra_op_threads", 5),
        ("intra_op_thread_count", "0", "intra_op_threads", 3),
        ("intra_op_thread_count", "-1", "intra_op_threads", 3),
        ("inter_op_thread_count", "2", "inter_op_threads", 2),
        ("execution_mode", "1", "is_parallel", True),
        ("execution_mode", "0", "is_parallel", False),
        ("enable_mem_arena", "0", "has_arena", False),
        ("enable_mem_pattern", "false", "has_pattern", False),
        ("session.intra_op.allow_spinning", "0", "entries", {"session.intra_op.allow_spinning": "0"}),
        (
            "session.use_device_allocator_for_initializers",
            "1",
            "entries",
            {"session.use_device_allocator_for_initializers": "1"},
        ),
        (
            "memory.enable_memory_arena_shrinkage",
            "cpu:0;gpu:0",
            "run_entries",
            {"memory.enable_memory_arena_shrinkage": "cpu:0;gpu:0"},
        ),
    ],
)
def test_parameters(key: str, value: str, field: str, expected: object) -> None:
    assert getattr(planned(**{key: value}), field) == expected


@pytest.mark.parametrize(
    ("level", "expected"),
    [(0, "ENABLE_ALL"), (-1, "ENABLE_BASIC"), (1, "ENABLE_EXTENDED"), (2, "DISABLE_ALL"), (7, "ENABLE_ALL")],
)
def test_levels_of_optimisation(level: int, expected: str) -> None:
    assert planned({"optimization": {"graph": {"level": level}}}).level == f"ORT_{expected}"


def test_a_global_pool_has_the_backends_threads_and_not_the_models() -> None:
    config = {"parameters": {"intra_op_thread_count": {"string_value": "9"}}}
    for on, expected in (("1", (2, 4)), ("TRUE", (2, 4)), ("0", (9, 0))):
        settings = {"enable-global-threadpool": on, "intra_op_thread_count": "2", "inter_op_thread_count": "4"}
        found = plan(spec(Path(), config, "onnxruntime", **settings), 3, ALL)
        assert (found.intra_op_threads, found.inter_op_threads) == expected


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, {}),
        ({"cudnn_conv_algo_search": "1"}, {"cudnn_conv_algo_search": "HEURISTIC"}),
        ({"arena_extend_strategy": "1"}, {"arena_extend_strategy": "kSameAsRequested"}),
        ({"gpu_mem_limit": "4000"}, {"gpu_mem_limit": "4000"}),
        ({"do_copy_in_default_stream": "0"}, {"do_copy_in_default_stream": "0"}),
    ],
)
def test_parameters_for_cuda(given: dict[str, str], found: dict[str, str]) -> None:
    assert planned(kind="GPU", **given).providers == [(CUDA, {**found, "device_id": "0"}), (CPU, {})]
    assert planned(**given).providers == [(CPU, {})], "which mean nothing without a GPU"


def test_options_of_cudas_provider_win_over_parameters_but_for_the_device() -> None:
    config = accelerated("gpu", "cuda", gpu_mem_limit="7", cudnn_conv_use_max_workspace="1", device_id="5")
    options = {"gpu_mem_limit": "7", "cudnn_conv_use_max_workspace": "1", "device_id": "0"}
    assert planned(config, "GPU", gpu_mem_limit="4").providers == [(CUDA, options), (CPU, {})]


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"precision_mode": "FP32"}, {}),
        ({"precision_mode": "FP16"}, {"trt_fp16_enable": "1"}),
        ({"precision_mode": "BF16"}, {"trt_bf16_enable": "1"}),
        ({"precision_mode": "INT8"}, {"trt_int8_enable": "1"}),
        ({"max_workspace_size_bytes": "1000"}, {"trt_max_workspace_size": "1000"}),
        ({"int8_calibration_table_name": "t"}, {"trt_int8_calibration_table_name": "t"}),
        ({"int8_use_native_calibration_table": "true"}, {"trt_int8_use_native_calibration_table": "1"}),
        (
            {"trt_engine_cache_enable": "True", "trt_dla_enable": "0"},
            {"trt_engine_cache_enable": "1", "trt_dla_enable": "0"},
        ),
        ({"trt_engine_cache_path": "/c", "trt_dla_core": "1"}, {"trt_engine_cache_path": "/c", "trt_dla_core": "1"}),
    ],
)
def test_tensorrt_comes_before_cuda(given: dict[str, str], found: dict[str, str]) -> None:
    config = accelerated("gpu", "tensorrt", **given)
    assert planned(config, "GPU").providers == [
        (TENSORRT, {**found, "device_id": "0"}),
        (CUDA, {"device_id": "0"}),
        (CPU, {}),
    ]
    assert planned(config).providers == [(CPU, {})], "accelerators of GPUs are for instances on GPUs"


def test_openvino() -> None:
    config = accelerated("cpu", "openvino", num_of_threads="2")
    assert planned(config).providers == [(OPENVINO, {"device_type": "CPU", "num_of_threads": "2"}), (CPU, {})]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"kind": "MODEL"}, "instance 'm_0_0' of model 'm' must be KIND_CPU or KIND_GPU"),
        ({"config": accelerated("cpu", "tensorrt")}, "unknown Execution Accelerator 'tensorrt' is requested"),
        (
            {"config": accelerated("gpu", "openvino"), "kind": "GPU"},
            "unknown Execution Accelerator 'openvino' is requested",
        ),
        (
            {"config": accelerated("gpu", "tensorrt", trt_speed="9"), "kind": "GPU"},
            "unknown parameter 'trt_speed' is provided for TensorRT Execution Accelerator",
        ),
        (
            {"config": accelerated("gpu", "tensorrt", precision_mode="FP8"), "kind": "GPU"},
            "unsupported precision mode 'FP8' is requested",
        ),
        (
            {"config": accelerated("gpu", "tensorrt", trt_dla_enable="maybe"), "kind": "GPU"},
            "failed to convert 'maybe' to boolean (parameter 'trt_dla_enable')",
        ),
        (
            {"kind": "GPU", "arena_extend_strategy": "2"},
            "parameter 'arena_extend_strategy' is '2', expected 0 to 1",
        ),
        ({"execution_mode": "fast"}, "failed to convert 'fast' to integer (parameter 'execution_mode')"),
    ],
)
def test_what_cannot_be(arguments: dict[str, Any], text: str) -> None:
    assert refusal(**arguments) == text


@pytest.mark.parametrize(
    ("kind", "config", "text"),
    [
        ("GPU", {}, "has kind KIND_GPU, but this ONNX Runtime has no CUDA: pip install 'tidepool[gpu]'"),
        ("GPU", accelerated("gpu", "tensorrt"), f"asks for {TENSORRT}, but this ONNX Runtime has no TensorRT: pip"),
        ("CPU", accelerated("cpu", "openvino"), f"asks for {OPENVINO}, but this ONNX Runtime has no OpenVINO: pip"),
    ],
)
def test_a_provider_that_is_missing_is_named_with_what_to_install(kind: str, config: dict[str, Any], text: str) -> None:
    assert text in refusal(ErrorCode.UNAVAILABLE, kind=kind, config=config, available=[CPU])


def test_a_provider_that_could_not_be_loaded_is_no_reason_to_use_the_processor() -> None:
    model, wanted = spec(Path(), {}), planned(kind="GPU").providers
    check_providers(model, wanted, [CUDA, CPU])
    with pytest.raises(BackendError, match=f"could not load its {CUDA} for instance 'm_0_0'"):
        check_providers(model, wanted, [CPU])


def test_libraries_of_operators() -> None:
    assert planned({"model_operations": {"op_library_filename": ["/a.so", "b.so"]}}).libraries == ["/a.so", "b.so"]
