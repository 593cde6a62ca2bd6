"""A gRPC frontend process between the real tritonclient and a fake broker."""

import asyncio
import queue
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.grpc import aio, model_config_pb2, service_pb2
from tritonclient.utils import InferenceServerException

from broker.messages import Cancel, Infer
from frontends.grpc.messages import message
from tests.support.fake_broker import FakeBroker, unknown
from tests.support.grpc_server import OPTIONS, SECONDS, GrpcServer

HealthCheckRequest = message("grpc.health.v1.HealthCheckRequest")
HealthCheckResponse = message("grpc.health.v1.HealthCheckResponse")


@pytest.fixture(scope="module")
def server() -> Iterator[GrpcServer]:
    with GrpcServer() as server:
        yield server


@pytest.fixture(scope="module")
def client(server: GrpcServer) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.address) as client:
        yield client


def call(server: GrpcServer, method: str, request: Any, answer: type[Any]) -> Any:
    """One call without tritonclient's own checks. Raises grpc.RpcError."""
    with grpc.insecure_channel(server.address) as channel:
        rpc = channel.unary_unary(
            f"/{method}", request_serializer=lambda m: m.SerializeToString(), response_deserializer=answer.FromString
        )
        return rpc(request, timeout=SECONDS)


def infer_request(**fields: Any) -> Any:
    return service_pb2.ModelInferRequest(**{"model_name": "echo", **fields})


def infer(server: GrpcServer, request: Any) -> Any:
    return call(server, "inference.GRPCInferenceService/ModelInfer", request, service_pb2.ModelInferResponse)


def tensor(name: str, array: np.ndarray[Any, Any], datatype: str = "FP32") -> triton.InferInput:
    given = triton.InferInput(name, list(array.shape), datatype)
    given.set_data_from_numpy(array)
    return given


# ----------------------------------------------------------------------------------------------- inference


@pytest.mark.parametrize("byte_size", [0, 4, 1024, 1028, 8 << 20])
def test_tensors_of_every_size_come_back(
    server: GrpcServer, client: triton.InferenceServerClient, byte_size: int
) -> None:
    array = np.random.default_rng(byte_size).standard_normal((1, byte_size // 4), np.float32)
    result = client.infer("echo", [tensor("A", array), tensor("B", -array)], request_id=f"id{byte_size}")
    np.testing.assert_array_equal(result.as_numpy("A"), array)
    np.testing.assert_array_equal(result.as_numpy("B"), -array)
    response = result.get_response()
    assert (response.model_name, response.model_version, response.id) == ("echo", "1", f"id{byte_size}")
    assert server.broker.lent_blocks == 0


def test_strings_come_back(client: triton.InferenceServerClient) -> None:
    array = np.array([["one", "", "drei \N{SNOWMAN}"], ["x" * 5000, "y", "z"]], np.object_)
    result = client.infer("echo", [tensor("A", array, "BYTES")])
    expected = [element.encode() for element in array.flat]
    assert result.as_numpy("A").reshape(-1).tolist() == expected


def test_typed_contents_become_raw(server: GrpcServer) -> None:
    request = infer_request()
    request.inputs.add(name="A", datatype="INT16", shape=[2], contents={"int_contents": [1, -2]})
    request.inputs.add(name="B", datatype="BYTES", shape=[1], contents={"bytes_contents": [b"text"]})
    response = infer(server, request)
    assert list(response.raw_output_contents) == [struct.pack("<hh", 1, -2), b"\x04\0\0\0text"]
    assert [(o.name, o.datatype, list(o.shape)) for o in response.outputs] == [("A", "INT16", [2]), ("B", "BYTES", [1])]


def test_requested_outputs_and_parameters(server: GrpcServer, client: triton.InferenceServerClient) -> None:
    array = np.ones((1, 4), np.float32)
    result = client.infer(
        "echo",
        [tensor("A", array), tensor("B", array)],
        model_version="7",
        outputs=[triton.InferRequestedOutput("B")],
        request_id="parameters",
        sequence_id=5,
        sequence_start=True,
        priority=2,
        timeout=1000,
        parameters={"mine": "x", "number": 3},
    )
    assert result.as_numpy("A") is None
    np.testing.assert_array_equal(result.as_numpy("B"), array)
    (sent,) = [message for message in server.sent("echo") if message.request_id == "parameters"]
    assert (sent.version, sent.outputs, sent.correlation_id, sent.flags) == (7, ("B",), 5, 1)
    assert (sent.priority, sent.timeout_us, sent.is_raw) == (2, 1000, False)
    assert sent.parameters == {"mine": "x", "number": 3}
    response = result.get_response()
    assert response.parameters["mine"].string_param == "x"
    assert response.parameters["number"].int64_param == 3


def test_fifty_at_a_time_get_their_own_answers(server: GrpcServer) -> None:
    async def ask(client: aio.InferenceServerClient, number: int) -> None:
        for byte_size in (4, 4000, 40_000):
            array = np.full((1, byte_size // 4), number, np.float32)
            result = await client.infer("echo", [tensor("A", array)], request_id=str(number))
            np.testing.assert_array_equal(result.as_numpy("A"), array)
            assert result.get_response().id == str(number)

    async def all_at_once() -> None:
        async with aio.InferenceServerClient(server.address) as client:
            await asyncio.gather(*[ask(client, number) for number in range(50)])

    asyncio.run(all_at_once())
    assert server.broker.lent_blocks == 0


def test_eight_clients_with_large_tensors(server: GrpcServer) -> None:
    def ask(number: int) -> None:
        array = np.full((1, 1 << 18), number, np.float32)
        with triton.InferenceServerClient(server.address) as client:
            for _ in range(3):
                np.testing.assert_array_equal(client.infer("echo", [tensor("A", array)]).as_numpy("A"), array)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(ask, range(8)))
    assert server.broker.lent_blocks == 0


# ----------------------------------------------------------------------------------------------- errors


def test_errors_of_the_broker(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException) as caught:
        client.infer("broken", [tensor("A", np.ones((1, 1000), np.float32))])
    assert (caught.value.status(), caught.value.message()) == ("StatusCode.INTERNAL", "it broke")
    with pytest.raises(InferenceServerException) as caught:
        client.infer("nope", [])
    assert (caught.value.status(), caught.value.message()) == ("StatusCode.NOT_FOUND", unknown("nope"))


@pytest.mark.parametrize(
    ("fields", "code", "text"),
    [
        (
            {"inputs": [{"name": "A"}]},
            grpc.StatusCode.INVALID_ARGUMENT,
            "unable to find data for input tensor 'A' for model 'echo' in request.",
        ),
        (
            {"model_version": "-1"},
            grpc.StatusCode.INVALID_ARGUMENT,
            "invalid model version specified '-1' , version should be an integral value > 0",
        ),
        (
            {"parameters": {"sequence_id": {"string_param": "s" * 129}}},
            grpc.StatusCode.UNIMPLEMENTED,
            "string correlation ID cannot be longer than 128 characters",
        ),
        (
            {"inputs": [{"name": "A", "parameters": {"shared_memory_region": {"string_param": "x"}}}]},
            grpc.StatusCode.INVALID_ARGUMENT,
            "'shared_memory_byte_size' must be specified along with 'shared_memory_region' parameter for tensor 'A'",
        ),
        ({"model_name": "nope", "inputs": [{"name": "A"}]}, grpc.StatusCode.NOT_FOUND, unknown("nope")),
    ],
)
def test_errors_of_the_frontend(server: GrpcServer, fields: dict[str, Any], code: grpc.StatusCode, text: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        infer(server, infer_request(**fields))
    assert (caught.value.code(), caught.value.details()) == (code, text)


def test_bytes_that_are_no_message(server: GrpcServer) -> None:
    with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(b"\xff\xff", timeout=SECONDS)
    assert caught.value.code() == grpc.StatusCode.INTERNAL
    assert caught.value.details().startswith("failed to parse the request message: ")


@pytest.mark.parametrize(
    "method",
    ["inference.GRPCInferenceService/X", "grpc.health.v1.Health/Watch"],
)
def test_other_methods_are_unimplemented(server: GrpcServer, method: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        call(server, method, service_pb2.TraceSettingRequest(), service_pb2.TraceSettingResponse)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


# ----------------------------------------------------------------------------------------------- clients that leave


def test_a_cancelled_call_is_cancelled_in_the_broker(server: GrpcServer, client: triton.InferenceServerClient) -> None:
    context = client.async_infer(
        "slow",
        [tensor("A", np.ones((1, 1000), np.float32))],
        callback=lambda result, error: None,
        request_id="cancelled",
    )
    sent = server.broker.wait_for(lambda m: isinstance(m, Infer) and m.request_id == "cancelled")
    context.cancel()
    server.broker.wait_for(lambda m: m == Cancel(sent.request))


def test_a_call_past_its_deadline_is_cancelled_in_the_broker(
    server: GrpcServer, client: triton.InferenceServerClient
) -> None:
    with pytest.raises(InferenceServerException) as caught:
        client.infer("slow", [], request_id="late", client_timeout=0.2)
    assert caught.value.status() == "StatusCode.DEADLINE_EXCEEDED"
    sent = server.broker.wait_for(lambda m: isinstance(m, Infer) and m.request_id == "late")
    server.broker.wait_for(lambda m: m == Cancel(sent.request))


def test_a_lost_connection_cancels_its_calls(server: GrpcServer) -> None:
    channel = grpc.insecure_channel(server.address)
    rpc = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    call = rpc.future(infer_request(model_name="slow", id="lost").SerializeToString())
    sent = server.broker.wait_for(lambda m: isinstance(m, Infer) and m.request_id == "lost")
    channel.close()
    server.broker.wait_for(lambda m: m == Cancel(sent.request))
    with pytest.raises(grpc.RpcError):
        call.result(SECONDS)


# ----------------------------------------------------------------------------------------------- everything else


def test_the_server(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    metadata = client.get_server_metadata()
    assert (metadata.name, metadata.version) == ("fake", "1.2.3")
    assert "statistics" in metadata.extensions


def test_models(client: triton.InferenceServerClient) -> None:
    assert client.is_model_ready("echo")
    assert not client.is_model_ready("nope", "3")
    metadata = client.get_model_metadata("echo")
    assert (metadata.name, metadata.platform, list(metadata.versions)) == ("echo", "fake", ["1"])
    assert client.get_model_config("echo").config == model_config_pb2.ModelConfig(name="echo")
    statistics = client.get_inference_statistics()
    assert [model.name for model in statistics.model_stats] == ["every"]


def test_health(server: GrpcServer) -> None:
    response = call(server, "grpc.health.v1.Health/Check", HealthCheckRequest(service="any"), HealthCheckResponse)
    assert response.status == HealthCheckResponse.SERVING


@pytest.mark.parametrize("question", ["get_model_metadata", "get_model_config"])
def test_questions_about_unknown_models(client: triton.InferenceServerClient, question: str) -> None:
    with pytest.raises(InferenceServerException) as caught:
        getattr(client, question)("nope")
    assert (caught.value.status(), caught.value.message()) == ("StatusCode.NOT_FOUND", unknown("nope"))


def test_questions_about_versions_that_are_no_number(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException) as caught:
        client.is_model_ready("echo", "newest")
    assert caught.value.message() == (
        "failed to get model version from specified version string 'newest' (details: stol), "
        "version should be an integral value > 0"
    )


# ----------------------------------------------------------------------------------------------- the process


def test_two_frontends_share_the_port_and_one_may_die(server: GrpcServer) -> None:
    other = server.start()
    other.process.kill()
    other.process.wait(SECONDS)
    with triton.InferenceServerClient(server.address) as client:
        assert client.is_server_live()


def test_it_stops_at_once_without_calls() -> None:
    with GrpcServer(exit_timeout_secs=1000) as server, triton.InferenceServerClient(server.address) as client:
        assert client.is_server_live()
        assert server.stop() == 0


def test_it_waits_for_calls_until_the_timeout() -> None:
    with GrpcServer(exit_timeout_secs=1) as server, triton.InferenceServerClient(server.address) as client:
        errors: queue.SimpleQueue[Any] = queue.SimpleQueue()
        client.async_infer("slow", [], callback=lambda result, error: errors.put(error))
        server.broker.wait_for(lambda m: isinstance(m, Infer))
        assert server.stop() == 0
        assert errors.get(timeout=SECONDS) is not None


def test_a_call_under_way_is_answered_before_it_stops() -> None:
    with GrpcServer(exit_timeout_secs=1000) as server, triton.InferenceServerClient(server.address) as client:
        answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        client.async_infer("slow", [], callback=lambda result, error: answers.put((result, error)))
        server.broker.wait_for(lambda m: isinstance(m, Infer))
        server.broker.stop(server.frontend.token)
        server.broker.answer_slow()
        result, error = answers.get(timeout=SECONDS)
        assert error is None
        assert result.get_response().model_name == "slow"
        assert server.frontend.process.wait(SECONDS) == 0


def test_a_taken_port_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with FakeBroker(**OPTIONS, grpc_port=port) as broker:
            assert broker.frontend("grpc").process.wait(SECONDS) != 0
