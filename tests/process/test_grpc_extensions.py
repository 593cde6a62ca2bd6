"""The extensions of the gRPC frontend as a process, with the real tritonclient and a fake broker."""

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from tritonclient.utils import InferenceServerException
from tritonclient.utils import shared_memory as memory

from broker.messages import Infer, LoadModel, RegisterRegion, UnloadModel, UpdateLogSettings, UpdateTraceSettings
from frontends.grpc.messages import message
from tests.support.grpc_server import SECONDS, GrpcServer

DISABLED = "Client shared memory is disabled. Start the server with '--allow-client-shm=true' to enable."
RESTRICTED = "This protocol is restricted, expecting header 'triton-grpc-protocol-{}'"


@pytest.fixture(scope="module")
def server() -> Iterator[GrpcServer]:
    with GrpcServer(grpc_header_forward_pattern="^x-") as server:
        yield server


@pytest.fixture(scope="module")
def client(server: GrpcServer) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.address) as client:
        yield client


def tensor(name: str, array: np.ndarray[Any, Any]) -> triton.InferInput:
    given = triton.InferInput(name, list(array.shape), "FP32")
    given.set_data_from_numpy(array)
    return given


def refusal(call: Any, *arguments: Any, **options: Any) -> tuple[str, str]:
    """Status and text of a call that has to fail."""
    with pytest.raises(InferenceServerException) as caught:
        call(*arguments, **options)
    return caught.value.status().removeprefix("StatusCode."), caught.value.message()


def last(server: GrpcServer, kind: type[Any]) -> Any:
    return [m for m in server.broker.seen if type(m) is kind][-1]


# ----------------------------------------------------------------------------------------------- shared memory


@pytest.fixture
def region() -> Iterator[Any]:
    """64 bytes of a client's, the first of which are the numbers from 1 to 4."""
    key = f"/test-{secrets.token_hex(8)}"
    handle = memory.create_shared_memory_region("mine", key, 64)
    memory.set_shared_memory_region(handle, [np.arange(1, 5, dtype=np.float32)])
    yield handle, key
    memory.destroy_shared_memory_region(handle)


@pytest.fixture
def registered(region: Any, client: triton.InferenceServerClient) -> Iterator[Any]:
    client.register_system_shared_memory("mine", region[1], 64)
    yield region[0]
    client.unregister_system_shared_memory("mine")


def in_memory(name: str, shape: list[int], offset: int = 0) -> triton.InferInput:
    given = triton.InferInput(name, shape, "FP32")
    given.set_shared_memory("mine", 4 * shape[0], offset)
    return given


def test_tensors_in_the_clients_memory(client: triton.InferenceServerClient, registered: Any) -> None:
    wanted = triton.InferRequestedOutput("A")
    wanted.set_shared_memory("mine", 16, offset=32)
    array = np.array([7.0], np.float32)
    result = client.infer(
        "echo", [in_memory("A", [4]), tensor("B", array)], outputs=[wanted, triton.InferRequestedOutput("B")]
    )
    assert memory.get_contents_as_numpy(registered, np.float32, [4], offset=32).tolist() == [1, 2, 3, 4]
    assert result.get_response().outputs[0].shape == [4]
    assert result.get_response().raw_output_contents[0] == b""
    np.testing.assert_array_equal(result.as_numpy("B"), array)


def test_tensors_in_memory_over_a_stream(
    client: triton.InferenceServerClient, registered: Any, server: GrpcServer
) -> None:
    with triton.InferenceServerClient(server.address) as other:
        told: list[Any] = []
        other.start_stream(lambda result, error: told.append((result, error)))
        other.async_stream_infer("echo", [in_memory("A", [2], offset=8)])
        other.stop_stream()
    ((result, error),) = told
    assert error is None
    assert result.as_numpy("A").tolist() == [3, 4]


def test_status_of_memory(client: triton.InferenceServerClient, region: Any) -> None:
    key = region[1]
    client.register_system_shared_memory("b", key, 32, offset=8)
    client.register_system_shared_memory("a", key, 64)
    regions = client.get_system_shared_memory_status().regions
    assert sorted(regions) == ["a", "b"]
    assert (regions["b"].name, regions["b"].key, regions["b"].offset, regions["b"].byte_size) == ("b", key, 8, 32)
    assert list(client.get_system_shared_memory_status("a").regions) == ["a"]
    assert not client.get_cuda_shared_memory_status().regions
    client.unregister_system_shared_memory("a")
    client.unregister_cuda_shared_memory("b")
    client.unregister_system_shared_memory("unknown")
    assert list(client.get_system_shared_memory_status().regions) == ["b"]
    client.unregister_system_shared_memory()
    assert not client.get_system_shared_memory_status().regions
    client.unregister_cuda_shared_memory()


def test_memory_that_cannot_be_registered(client: triton.InferenceServerClient, region: Any) -> None:
    key = region[1]
    register = client.register_system_shared_memory
    register("taken", key, 64)
    assert refusal(register, "taken", key, 64) == ("ALREADY_EXISTS", "shared memory region 'taken' already in manager")
    client.unregister_system_shared_memory("taken")
    opening = "Unable to open shared memory region: '{}'"
    assert refusal(register, "r", "/not-there", 64) == ("INTERNAL", opening.format("/not-there"))
    invalid = ("INVALID_ARGUMENT", "failed to register shared memory region 'r': invalid args")
    assert refusal(register, "r", key, 65) == invalid
    assert refusal(register, "r", key, 64, offset=1) == invalid
    for bad in ("/../etc/passwd", "/a/b", "///", "..", ""):
        status, text = refusal(register, "r", bad, 64)
        assert (status, text) == (
            "INVALID_ARGUMENT",
            f"cannot register shared memory region 'r' - invalid shm key '{bad}'",
        )
    for reserved in ("/tidepool-1-f0-0", "triton_python_backend_shm_region_1"):
        status, text = refusal(register, "r", reserved, 64)
        assert status == "INVALID_ARGUMENT"
        assert "as the key contains the reserved prefix" in text


@pytest.mark.skipif(any(Path("/dev").glob("nvidia[0-9]*")), reason="this machine has a GPU")
def test_cuda_memory_needs_a_gpu(client: triton.InferenceServerClient) -> None:
    assert refusal(client.register_cuda_shared_memory, "c", bytes(64), 0, 64) == (
        "INVALID_ARGUMENT",
        "failed to register CUDA shared memory region: 'c', GPUs not supported",
    )


def test_memory_that_a_request_cannot_use(client: triton.InferenceServerClient, registered: Any) -> None:
    def ask(name: str, byte_size: int, offset: int, output: bool = False) -> tuple[str, str]:
        given = triton.InferInput("A", [2], "FP32")
        given.set_data_from_numpy(np.zeros(2, np.float32))
        wanted = triton.InferRequestedOutput("A")
        (wanted if output else given).set_shared_memory(name, byte_size, offset)
        return refusal(client.infer, "echo", [given], outputs=[wanted])

    for output in (False, True):
        assert ask("nope", 8, 0, output) == ("NOT_FOUND", "Unable to find shared memory region: 'nope'")
        offset = ("INVALID_ARGUMENT", "Invalid offset for shared memory region: 'mine'")
        assert ask("mine", 8, 65, output) == offset
        assert ask("mine", 8, -80, output) == offset
        both = ("INVALID_ARGUMENT", "Invalid offset + byte size for shared memory region: 'mine'")
        assert ask("mine", 8, 60, output) == both
        assert ask("mine", -8, 0, output) == both
        assert ask("mine", 8, -4, output) == offset


def test_registration_may_be_switched_off(region: Any) -> None:
    with GrpcServer(allow_client_shm=False) as server, triton.InferenceServerClient(server.address) as client:
        assert refusal(client.register_system_shared_memory, "r", region[1], 64) == ("UNIMPLEMENTED", DISABLED)
        assert refusal(client.register_cuda_shared_memory, "r", b"", 0, 64) == ("UNIMPLEMENTED", DISABLED)
        assert refusal(client.unregister_system_shared_memory) == ("UNIMPLEMENTED", DISABLED)
        assert not client.get_system_shared_memory_status().regions
        assert not any(isinstance(m, RegisterRegion) for m in server.broker.seen)


# ----------------------------------------------------------------------------------------------- the other extensions


def test_classification(client: triton.InferenceServerClient) -> None:
    array = np.array([1.0, 2.5, 2.0], np.float32)
    result = client.infer("echo", [tensor("X", array)], outputs=[triton.InferRequestedOutput("X", class_count=3)])
    assert result.as_numpy("X").tolist() == [b"2.500000:1:dog", b"2.000000:2", b"1.000000:0:cat"]
    assert client.infer("echo", [tensor("X", array)]).as_numpy("X").tolist() == array.tolist()


def test_the_repository(server: GrpcServer, client: triton.InferenceServerClient) -> None:
    (model,) = client.get_model_repository_index().models
    assert (model.name, model.version, model.state) == ("echo", "1", "READY")
    client.load_model("m", config='{"backend": "x"}', files={"file:1/model.py": b"\0\xff"})
    sent = last(server, LoadModel)
    assert (sent.model, sent.config, sent.files) == ("m", '{"backend": "x"}', {"1/model.py": b"\0\xff"})
    client.unload_model("m", unload_dependents=True)
    assert last(server, UnloadModel)[1:] == ("m", True)
    assert refusal(client.load_model, "nope") == (
        "INTERNAL",
        "failed to load 'nope', failed to poll from model repository",
    )


def test_settings(server: GrpcServer, client: triton.InferenceServerClient) -> None:
    settings = client.update_trace_settings("echo", {"trace_level": ["TIMESTAMPS"], "trace_count": "5"}).settings
    assert last(server, UpdateTraceSettings)[1:] == ("echo", {"trace_level": ["TIMESTAMPS"], "trace_count": ["5"]})
    assert list(settings["trace_level"].value) == ["TIMESTAMPS"]
    assert list(client.get_trace_settings().settings["trace_rate"].value) == ["1000"]
    client.update_log_settings({"log_info": False, "log_verbose_level": 1, "log_format": "ISO8601"})
    assert last(server, UpdateLogSettings)[1] == {"log_info": False, "log_verbose_level": 1, "log_format": "ISO8601"}
    assert client.get_log_settings().settings["log_info"].bool_param is True
    assert refusal(client.update_log_settings, {"log_format": "xml"}) == (
        "INVALID_ARGUMENT",
        "invalid argument for log_format, got: xml",
    )


def test_metadata_are_forwarded(server: GrpcServer, client: triton.InferenceServerClient) -> None:
    client.infer("echo", [], request_id="forwarded", headers={"x-user": "alice", "y": "z"}, parameters={"a": 1})
    assert last(server, Infer).parameters == {"a": 1, "x-user": "alice"}
    trace = {"traceparent": f"00-{'1' * 32}-{'2' * 16}-01", "tracestate": "a=b"}
    client.infer("echo", [], headers=trace)
    assert (last(server, Infer).traceparent, last(server, Infer).tracestate) == tuple(trace.values())


def test_reflection(server: GrpcServer) -> None:
    request, response = (message(f"grpc.reflection.v1.ServerReflection{kind}") for kind in ("Request", "Response"))
    questions = [request(list_services=""), request(file_containing_symbol="inference.GRPCInferenceService")]
    for version in ("v1", "v1alpha"):
        with grpc.insecure_channel(server.address) as channel:
            ask = channel.stream_stream(
                f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
                lambda m: m.SerializeToString(),
                response.FromString,
            )
            services, files = ask(iter(questions), timeout=SECONDS)
        assert [service.name for service in services.list_services_response.service] == [
            "inference.GRPCInferenceService",
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
        ]
        first = FileDescriptorProto.FromString(files.file_descriptor_response.file_descriptor_proto[0])
        assert [service.name for service in first.service] == ["GRPCInferenceService"]


# ----------------------------------------------------------------------------------------------- restricted protocols


def test_restricted_protocols() -> None:
    flags = ["health,inference:one=first", "model-repository:Two=second"]
    with GrpcServer(grpc_restricted_protocol=flags) as server, triton.InferenceServerClient(server.address) as client:
        one, two = {"triton-grpc-protocol-one": "first"}, {"triton-grpc-protocol-two": "second"}
        for call, arguments, header, name in (
            (client.is_server_live, (), one, "one"),
            (client.is_model_ready, ("echo",), one, "one"),
            (client.infer, ("echo", []), one, "one"),
            (client.get_model_repository_index, (), two, "Two"),
        ):
            for wrong in ({}, {next(iter(header)): "wrong"}):
                assert refusal(call, *arguments, headers=wrong) == ("UNAVAILABLE", RESTRICTED.format(name))
            assert call(*arguments, headers=header)
        assert client.get_server_metadata().name == "fake"

        with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=SECONDS)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError) as caught:
            next(channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")(iter(()), timeout=SECONDS))
        assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.UNAVAILABLE, RESTRICTED.format("one"))
