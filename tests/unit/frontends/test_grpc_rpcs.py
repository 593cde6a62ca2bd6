"""The RPCs besides inference: what each one asks of the broker, and how the answer reads."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from google.protobuf.json_format import MessageToDict, ParseDict

from broker.messages import (
    ErrorCode,
    GetModelConfig,
    GetModelMetadata,
    GetModelReady,
    GetRegionStatus,
    GetRepositoryIndex,
    GetServerReady,
    GetStatistics,
    LoadModel,
    Message,
    RegisterRegion,
    UnloadModel,
    UnregisterRegion,
    UpdateLogSettings,
    UpdateTraceSettings,
)
from frontends.errors import RequestError
from frontends.grpc.handlers import INFERENCE_SERVICE
from frontends.grpc.messages import message, pool
from frontends.grpc.queries import HEALTH, QUERIES
from frontends.grpc.regions import REGIONS
from frontends.grpc.repository import MAX_FILES, REPOSITORY, override_of
from frontends.grpc.restricted import CATEGORIES
from frontends.grpc.settings import SETTINGS
from tests.support.memory_client import MemoryClient, service_of

RPCS = QUERIES | REPOSITORY | REGIONS | SETTINGS
METHODS = pool().FindServiceByName(INFERENCE_SERVICE).methods_by_name
READY = {"live": True, "ready": False}


def run(name: str, request: dict[str, Any], client: MemoryClient, allows_client_memory: bool = True) -> dict[str, Any]:
    """The response of an RPC to a request, both as JSON, checked against the service's messages."""
    given = ParseDict(request, message(METHODS[name].input_type.full_name)())
    answer = asyncio.run(RPCS[name](service_of(client, "", allows_client_memory), given))
    response = ParseDict(answer, message(METHODS[name].output_type.full_name)())
    told: dict[str, Any] = MessageToDict(response, preserving_proto_field_name=True)
    return told


def refused(name: str, request: dict[str, Any], **client: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        run(name, request, MemoryClient(**client))
    return caught.value


def test_every_rpc_of_the_service_is_served_and_has_a_category() -> None:
    assert {*METHODS} == {*RPCS, "ModelInfer", "ModelStreamInfer"}
    assert {*CATEGORIES} == {*METHODS, *HEALTH}


@pytest.mark.parametrize(
    ("name", "request_", "question", "content", "response"),
    [
        ("ServerLive", {}, GetServerReady(7), READY, {"live": True}),
        ("ServerReady", {}, GetServerReady(7), READY, {}),
        ("ModelReady", {"name": "m", "version": "3"}, GetModelReady(7, "m", 3), {"ready": True}, {"ready": True}),
        ("ModelMetadata", {"name": "m"}, GetModelMetadata(7, "m", -1), {"name": "m"}, {"name": "m"}),
        ("ModelConfig", {"name": "m"}, GetModelConfig(7, "m", -1), {"name": "m"}, {"config": {"name": "m"}}),
        (
            "ModelStatistics",
            {},
            GetStatistics(7, "", -1),
            {"model_stats": [{"name": "m", "inference_count": 2}]},
            {"model_stats": [{"name": "m", "inference_count": "2"}]},
        ),
        (
            "RepositoryIndex",
            {"ready": True},
            GetRepositoryIndex(7, True),
            [{"name": "m", "version": "1", "state": "READY"}],
            {"models": [{"name": "m", "version": "1", "state": "READY"}]},
        ),
        (
            "RepositoryModelLoad",
            {
                "model_name": "m",
                "parameters": {"config": {"string_param": "{}"}, "file:1/model.py": {"bytes_param": "YWJj"}},
            },
            LoadModel(7, "m", "{}", {"1/model.py": b"abc"}),
            None,
            {},
        ),
        ("RepositoryModelLoad", {"model_name": "m"}, LoadModel(7, "m", "", {}), None, {}),
        ("RepositoryModelUnload", {"model_name": "m"}, UnloadModel(7, "m", False), None, {}),
        (
            "RepositoryModelUnload",
            {"model_name": "m", "parameters": {"unload_dependents": {"bool_param": True}, "x": {"int64_param": 1}}},
            UnloadModel(7, "m", True),
            None,
            {},
        ),
        (
            "TraceSetting",
            {"model_name": "m", "settings": {"trace_level": {"value": ["A", "B"]}, "trace_rate": {}}},
            UpdateTraceSettings(7, "m", {"trace_level": ["A", "B"], "trace_rate": None}),
            {"trace_level": ("OFF",), "trace_file": ("",)},
            {"settings": {"trace_level": {"value": ["OFF"]}, "trace_file": {"value": [""]}}},
        ),
        (
            "LogSettings",
            {
                "settings": {
                    "log_info": {"bool_param": False},
                    "log_verbose_level": {"uint32_param": 2},
                    "log_format": {"string_param": "ISO8601"},
                    "other": {"bool_param": True},
                }
            },
            UpdateLogSettings(7, {"log_info": False, "log_verbose_level": 2, "log_format": "ISO8601"}),
            {"log_file": "", "log_info": False, "log_verbose_level": 0},
            {
                "settings": {
                    "log_file": {"string_param": ""},
                    "log_info": {"bool_param": False},
                    "log_verbose_level": {"uint32_param": 0},
                }
            },
        ),
        (
            "SystemSharedMemoryStatus",
            {"name": "r"},
            GetRegionStatus(7, "r", "system"),
            [{"name": "r", "key": "/k", "offset": 4, "byte_size": 8}],
            {"regions": {"r": {"name": "r", "key": "/k", "offset": "4", "byte_size": "8"}}},
        ),
        (
            "CudaSharedMemoryStatus",
            {},
            GetRegionStatus(7, "", "cuda"),
            [{"name": "r", "device_id": 1, "byte_size": 8}],
            {"regions": {"r": {"name": "r", "device_id": "1", "byte_size": "8"}}},
        ),
        ("SystemSharedMemoryUnregister", {"name": "r"}, UnregisterRegion(7, "r", "system"), None, {}),
        ("CudaSharedMemoryUnregister", {}, UnregisterRegion(7, "", "cuda"), None, {}),
    ],
)
def test_questions_and_answers(
    name: str, request_: dict[str, Any], question: Message, content: Any, response: dict[str, Any]
) -> None:
    client = MemoryClient(content=content)
    assert run(name, request_, client) == response
    assert client.asked == [question]


def test_the_server_metadata() -> None:
    metadata = run("ServerMetadata", {}, MemoryClient())
    assert (metadata["name"], metadata["version"]) == ("name", "1.2")
    assert "binary_tensor_data" in metadata["extensions"]


def test_the_brokers_errors_are_the_clients() -> None:
    error = refused("ModelMetadata", {"name": "m"}, known=False)
    assert (error.code, error.message) == (ErrorCode.NOT_FOUND, "Request for unknown model: 'm' is not found")


@pytest.mark.parametrize("name", REPOSITORY)
def test_one_repository_cannot_be_named(name: str) -> None:
    error = refused(name, {"repository_name": "x"})
    assert (error.code, error.message) == (ErrorCode.UNSUPPORTED, "'repository_name' specification is not supported")


@pytest.mark.parametrize(
    ("name", "parameter", "value", "text"),
    [
        (
            "RepositoryModelLoad",
            "config",
            {"bool_param": True},
            "invalid value type for load parameter 'config', expected string_param.",
        ),
        (
            "RepositoryModelLoad",
            "file:1/m",
            {"string_param": "x"},
            "invalid value type for load parameter 'file:1/m', expected bytes_param.",
        ),
        ("RepositoryModelLoad", "zz", {"string_param": "x"}, "unrecognized load parameter 'zz'."),
        (
            "RepositoryModelUnload",
            "unload_dependents",
            {"string_param": "x"},
            "invalid value type for 'unload_dependents' parameter, expected bool_param.",
        ),
    ],
)
def test_wrong_parameters_of_loads_and_unloads(name: str, parameter: str, value: dict[str, Any], text: str) -> None:
    error = refused(name, {"model_name": "m", "parameters": {parameter: value}})
    assert (error.code, error.message) == (ErrorCode.INVALID_ARG, text)


class Megabyte(NamedTuple):
    """A load parameter; hundreds of them share its bytes."""

    bytes_param: bytes = bytes(1 << 20)

    def WhichOneof(self, _oneof: str) -> str:  # protobuf's name
        return "bytes_param"


def test_the_files_of_a_load_are_bounded() -> None:
    given: dict[str, Any] = {f"file:1/{number}": Megabyte() for number in range(MAX_FILES >> 20)}
    assert len(override_of(given)[1]) == len(given)
    given["config"] = message("inference.ModelRepositoryParameter")(string_param="{}")
    with pytest.raises(RequestError) as caught:
        override_of(given)
    assert caught.value.code == ErrorCode.INVALID_ARG
    assert caught.value.message.startswith(f"a load with {MAX_FILES + 2} bytes of files")


@pytest.mark.parametrize(
    ("setting", "value", "text"),
    [
        ("log_info", {"string_param": "x"}, "expect boolean for 'log_info'"),
        ("log_error", {}, "expect boolean for 'log_error'"),
        ("log_verbose_level", {"bool_param": True}, "expect int32 for 'log_verbose_level'"),
        ("log_format", {"uint32_param": 1}, "expect string for 'log_format'"),
    ],
)
def test_log_settings_of_another_type(setting: str, value: dict[str, Any], text: str) -> None:
    error = refused("LogSettings", {"settings": {setting: value}})
    assert (error.code, error.message) == (ErrorCode.INVALID_ARG, text)


def test_a_wrong_trace_count_is_told_in_grpcs_words() -> None:
    def reject(_question: Message) -> None:
        raise RequestError(ErrorCode.INVALID_ARG, "Unable to parse 'trace_count'. Expecting value >= -1, got:-2")

    error = refused("TraceSetting", {"settings": {"trace_count": {"value": ["-2"]}}}, content=reject)
    assert error.code == ErrorCode.INVALID_ARG
    assert error.message == "Unable to parse 'trace_count'. Expecting value >= -1, got: -2"


# ----------------------------------------------------------------------------------------------- clients' memory


@pytest.fixture
def key() -> Iterator[str]:
    path = Path(f"/dev/shm/test-{os.urandom(6).hex()}")
    path.write_bytes(bytes(64))
    yield f"/{path.name}"
    path.unlink()


def test_system_memory_is_registered(key: str) -> None:
    client = MemoryClient()
    assert run("SystemSharedMemoryRegister", {"name": "r", "key": key, "offset": 8, "byte_size": 56}, client) == {}
    assert client.asked == [RegisterRegion(7, "r", "system", key, 8, 56, 0, b"")]


def test_cuda_memory_needs_a_gpu() -> None:
    request = {"name": "r", "raw_handle": "YWJj", "byte_size": 8}
    error = refused("CudaSharedMemoryRegister", request, content=lambda _: [])
    assert error.code == ErrorCode.INVALID_ARG
    assert error.message in (
        "failed to register CUDA shared memory region: 'r', GPUs not supported",
        "failed to register shared memory region: invalid args",
    )


def test_memory_that_is_not_there_is_not_registered() -> None:
    request = {"name": "r", "key": "/no such key", "byte_size": 8}
    error = refused("SystemSharedMemoryRegister", request, content=lambda _: [])
    assert error.code == ErrorCode.INTERNAL
    assert error.message == "Unable to open shared memory region: '/no such key'"


def test_memory_is_not_registered_without_a_name(key: str) -> None:
    error = refused("SystemSharedMemoryRegister", {"key": key, "byte_size": 8})
    assert error.code == ErrorCode.INVALID_ARG
    assert error.message == "'region name' is necessary to register system shared memory region"


@pytest.mark.parametrize("name", [name for name in REGIONS if not name.endswith("Status")])
def test_registration_may_be_off(name: str) -> None:
    client = MemoryClient()
    with pytest.raises(RequestError) as caught:
        run(name, {}, client, allows_client_memory=False)
    assert caught.value.code == ErrorCode.UNSUPPORTED
    assert caught.value.message == (
        "Client shared memory is disabled. Start the server with '--allow-client-shm=true' to enable."
    )
    assert client.asked == []
