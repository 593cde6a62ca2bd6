"""Streams of a gRPC frontend process between the real tritonclient and a fake broker."""

import asyncio
import queue
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.grpc import aio, service_pb2
from tritonclient.utils import InferenceServerException

from broker.messages import Cancel, Consumed, Infer
from frontends.grpc.stream import MAX_IN_FLIGHT
from tests.support.fake_broker import unknown
from tests.support.grpc_server import SECONDS, GrpcServer
from tests.support.waiting import until

METHOD = "/inference.GRPCInferenceService/ModelStreamInfer"


@pytest.fixture(scope="module")
def server() -> Iterator[GrpcServer]:
    with GrpcServer() as server:
        yield server


class Streaming:
    """An open stream of tritonclient's."""

    def __init__(self, server: GrpcServer, **options: Any) -> None:
        self.client = triton.InferenceServerClient(server.address)
        self._told: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()
        self.client.start_stream(lambda result, error: self._told.put((result, error)), **options)

    def __enter__(self) -> "Streaming":
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def ask(self, model: str, request_id: str, inputs: Any = (), **options: Any) -> None:
        self.client.async_stream_infer(model, list(inputs), request_id=request_id, **options)

    def next(self) -> Any:
        """The next response. Raises the next error."""
        result, error = self._told.get(timeout=SECONDS)
        if error is not None:
            raise error
        return result

    def next_number(self) -> tuple[str, int | None, bool]:
        """Of the model `stream`: the request's id, the number, whether it is final."""
        result = self.next()
        response = result.get_response()
        number = result.as_numpy("N")
        is_final = response.parameters["triton_final_response"].bool_param
        return response.id, None if number is None else int(number[0]), is_final


def tensor(array: np.ndarray[Any, Any]) -> triton.InferInput:
    given = triton.InferInput("A", list(array.shape), "FP32")
    given.set_data_from_numpy(array)
    return given


def counting(request_id: str, count: int, model: str = "stream") -> Any:
    request = service_pb2.ModelInferRequest(model_name=model, id=request_id)
    request.parameters["count"].int64_param = count
    return request


def open_stream(channel: grpc.Channel) -> Any:
    return channel.stream_stream(
        METHOD,
        request_serializer=lambda m: m.SerializeToString(),
        response_deserializer=service_pb2.ModelStreamInferResponse.FromString,
    )


def infer_of(server: GrpcServer, request_id: str) -> Infer:
    found: Infer = server.broker.wait_for(lambda m: isinstance(m, Infer) and m.request_id == request_id)
    return found


def wait_for_cancel(server: GrpcServer, request_id: str) -> None:
    cancel = Cancel(infer_of(server, request_id).request)
    server.broker.wait_for(lambda m: m == cancel)


# ----------------------------------------------------------------------------------------------- responses


def test_responses_in_order_with_small_and_large_tensors(server: GrpcServer) -> None:
    arrays = [np.full((1, 1 << (number % 20)), number, np.float32) for number in range(60)]
    with Streaming(server) as stream:
        for number, array in enumerate(arrays):
            stream.ask("echo", str(number), [tensor(array)])
        for number, array in enumerate(arrays):
            result = stream.next()
            assert result.get_response().id == str(number)
            assert result.get_response().parameters["triton_final_response"].bool_param
            np.testing.assert_array_equal(result.as_numpy("A"), array)
    assert server.broker.lent_blocks == 0


@pytest.mark.parametrize("count", [0, 1, 3, 1000])
def test_any_number_of_responses(server: GrpcServer, count: int) -> None:
    with Streaming(server) as stream:
        stream.ask("stream", "x", parameters={"count": count}, enable_empty_final_response=True)
        told = [stream.next_number() for _ in range(count + 1)]
    assert told == [*[("x", number, False) for number in range(count)], ("x", None, True)]


def test_no_response_at_all_without_asking_for_the_final_one(server: GrpcServer) -> None:
    with Streaming(server) as stream:
        stream.ask("stream", "none", parameters={"count": 0})
        stream.ask("echo", "next", [tensor(np.ones((1, 1), np.float32))])
        assert stream.next().get_response().id == "next"


def test_two_requests_interleave(server: GrpcServer) -> None:
    with Streaming(server) as stream:
        stream.ask("slow", "waits")
        for name in ("a", "b"):
            stream.ask("stream", name, parameters={"count": 200}, enable_empty_final_response=True)
        told = [stream.next_number() for _ in range(402)]
        server.broker.answer_slow()
        assert stream.next().get_response().id == "waits"
    for name in ("a", "b"):
        numbers: list[int | None] = [number for told_name, number, _ in told if told_name == name]
        assert numbers == [*range(200), None]


def test_the_asyncio_client(server: GrpcServer) -> None:
    async def requests() -> AsyncIterator[dict[str, Any]]:
        for number in range(20):
            array = np.full((1, 1000), number, np.float32)
            yield {"model_name": "echo", "inputs": [tensor(array)], "request_id": str(number)}

    async def run() -> list[str]:
        async with aio.InferenceServerClient(server.address) as client:
            told: list[str] = []
            async for result, error in client.stream_infer(requests(), stream_timeout=SECONDS):
                assert error is None
                told.append(result.get_response().id)
            return told

    assert asyncio.run(run()) == [str(number) for number in range(20)]


# ----------------------------------------------------------------------------------------------- errors


def test_errors_are_told_and_the_stream_goes_on(server: GrpcServer) -> None:
    with Streaming(server) as stream:
        for model in ("nope", "broken", "refusing", "echo"):
            stream.ask(model, model, [tensor(np.ones((1, 1), np.float32))])
        for text in (unknown("nope"), "it broke", "the queue is full"):
            with pytest.raises(InferenceServerException) as caught:
                stream.next()
            assert caught.value.message() == text
        assert stream.next().get_response().id == "echo"


def test_in_strict_mode_an_error_is_the_streams_status(server: GrpcServer) -> None:
    with Streaming(server, headers={"triton_grpc_error": "true"}) as stream:
        stream.ask("refusing", "in the stream")
        stream.ask("slow", "cancelled by an error")
        stream.ask("stream", "ends it", parameters={"count": 1, "fails": True})
        with pytest.raises(InferenceServerException) as caught:
            stream.next()
        assert (caught.value.status(), caught.value.message()) == (None, "the queue is full")
        assert stream.next_number() == ("ends it", 0, False)
        with pytest.raises(InferenceServerException) as caught:
            stream.next()
        assert (caught.value.status(), caught.value.message()) == ("StatusCode.INTERNAL", "it broke")
    wait_for_cancel(server, "cancelled by an error")


@pytest.mark.parametrize("number", [0, 1, 2])
def test_bytes_that_are_no_message_end_the_stream(server: GrpcServer, number: int) -> None:
    refused = service_pb2.ModelInferRequest(model_name="echo")
    refused.inputs.add(name="without data")
    requests = [*[refused.SerializeToString()] * number, b"\xff"]
    with grpc.insecure_channel(server.address) as channel:
        for _ in range(20):  # the error meets the first response while gRPC is sending it
            with pytest.raises(grpc.RpcError) as caught:
                list(channel.stream_stream(METHOD)(iter(requests), timeout=SECONDS))
            assert caught.value.code() == grpc.StatusCode.INTERNAL


# ----------------------------------------------------------------------------------------------- flow and the end


WINDOW = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65_535)]
"""Options of a client that takes 64 KB ahead of what is read; by default it takes megabytes."""


def wait_until_held_up(server: GrpcServer, request_id: str) -> int:
    """Wait until no response to this request is taken any more; how many were. Others are served meanwhile."""
    asked = infer_of(server, request_id)

    def consumed() -> int:
        return sum(isinstance(m, Consumed) and m.request == asked.request for m in tuple(server.broker.seen))

    before = -1
    while before != (before := consumed()):
        with triton.InferenceServerClient(server.address) as other:
            for _ in range(20):
                assert other.is_server_live()
        time.sleep(0.2)  # no event tells that nothing happens
    return before


def test_a_slow_reader_holds_up_the_model_and_nothing_else(server: GrpcServer) -> None:
    count = 5_000
    with grpc.insecure_channel(server.address, WINDOW) as channel:
        responses = open_stream(channel)(iter([counting("slow reader", count)]), timeout=SECONDS * 2)
        next(responses)
        assert wait_until_held_up(server, "slow reader") < count // 2
        numbers = [int.from_bytes(r.infer_response.raw_output_contents[0], "little") for r in responses]
    assert numbers == [*range(1, count)]


def test_an_error_comes_after_what_is_being_written(server: GrpcServer) -> None:
    requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    requests.put(counting("held up", 5_000).SerializeToString())
    told: list[Any] = []
    with grpc.insecure_channel(server.address, WINDOW) as channel:
        responses = channel.stream_stream(METHOD)(iter(requests.get, None), timeout=SECONDS)
        next(responses)
        taken = wait_until_held_up(server, "held up")
        requests.put(b"\xff")
        wait_for_cancel(server, "held up")
        with pytest.raises(grpc.RpcError) as caught:
            told.extend(responses)
        requests.put(None)
    assert caught.value.code() == grpc.StatusCode.INTERNAL
    assert len(told) == taken


def test_a_client_that_leaves_cancels_everything_of_its_stream(server: GrpcServer) -> None:
    names = [f"left {number}" for number in range(5)]
    with Streaming(server) as stream:
        for name in names:
            stream.ask("slow", name, [tensor(np.ones((1, 1000), np.float32))])
        stream.ask("stream", "left stream", parameters={"count": 1 << 30})
        stream.next()
        infer_of(server, names[-1])
        stream.client.stop_stream(cancel_requests=True)
    for name in [*names, "left stream"]:
        wait_for_cancel(server, name)
    until(lambda: server.broker.lent_blocks == 0, SECONDS, "every block is given back")


def test_a_stream_past_its_deadline_is_cancelled(server: GrpcServer) -> None:
    with Streaming(server, stream_timeout=0.3) as stream:
        stream.ask("slow", "late stream")
        with pytest.raises(InferenceServerException):
            stream.next()
    wait_for_cancel(server, "late stream")


def test_requests_beyond_the_limit_wait_in_the_client(server: GrpcServer) -> None:
    total = MAX_IN_FLIGHT + 50

    def arrived() -> int:
        return sum(m.request_id.startswith("limit") for m in server.sent("slow"))

    with grpc.insecure_channel(server.address) as channel:
        requests = [service_pb2.ModelInferRequest(model_name="slow", id=f"limit {n}") for n in range(total)]
        responses = open_stream(channel)(iter(requests), timeout=SECONDS * 2)
        until(lambda: arrived() == MAX_IN_FLIGHT, SECONDS, "as many as the limit have arrived")
        server.broker.answer_slow()
        told = [next(responses).infer_response.id for _ in range(MAX_IN_FLIGHT)]
        until(lambda: arrived() == total, SECONDS, "the others have arrived")
        server.broker.answer_slow()
        told += [response.infer_response.id for response in responses]
    assert told == [request.id for request in requests]


def test_a_server_that_stops_finishes_its_streams() -> None:
    with GrpcServer(exit_timeout_secs=1000) as server, Streaming(server) as stream, Streaming(server) as idle:
        stream.ask("slow", "under way")
        infer_of(server, "under way")
        idle.ask("echo", "idle", [tensor(np.ones((1, 1), np.float32))])
        idle.next()
        server.broker.stop(server.frontend.token)
        for each in (idle, stream):
            if each is stream:
                server.broker.answer_slow()
                assert each.next().get_response().id == "under way"
            with pytest.raises(InferenceServerException) as caught:
                each.next()
            assert caught.value.status() == "StatusCode.UNAVAILABLE"
            assert caught.value.message() == ("GRPC server is shutting down and has stopped accepting new requests.")
        assert server.frontend.process.wait(SECONDS) == 0
