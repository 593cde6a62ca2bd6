"""Streams from tritonclient through the whole server to decoupled Python models and back."""

import queue
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

from tests.support.repository import instances, tensor, write_echo, write_model
from tests.support.server import Server
from tests.support.waiting import until

SECONDS = 60.0
METHOD = "/inference.GRPCInferenceService/ModelStreamInfer"
EMPTY, LAST, ERROR = range(3)
"""How the model `repeat` ends, see `models/repeat.py`."""


class Streams(NamedTuple):
    """A server with the models `repeat` and `echo`, and the directory of `repeat`'s records."""

    server: Server
    records: Path

    def sent(self, request_id: str) -> int:
        """Responses that `repeat` has sent to a request."""
        record = self.records / request_id
        return record.stat().st_size if record.exists() else 0

    def is_cancelled(self, request_id: str) -> bool:
        return (self.records / f"{request_id}.cancelled").exists()


@pytest.fixture(scope="module")
def streams(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Streams]:
    directory = tmp_path_factory.mktemp("streams")
    records = directory / "records"
    records.mkdir()
    server = Server(directory / "server")
    write_echo(server.repository, "echo")
    io = f"input [ {tensor('ORDER', 'TYPE_INT32', '[ 3 ]')} ]\noutput [ {tensor('OUT', 'TYPE_INT32')} ]\n"
    more = f'parameters {{ key: "directory" value {{ string_value: "{records}" }} }}\n{instances(1)}\n'
    decoupled = "model_transaction_policy { decoupled: true }\n"
    write_model(server.repository, "repeat", f'backend: "python"\n{io}{more}{decoupled}', "repeat")
    with server:
        yield Streams(server, records)


class Streaming:
    """An open stream of tritonclient's."""

    def __init__(self, streams: Streams, **options: Any) -> None:
        self.client = triton.InferenceServerClient(streams.server.address("grpc"))
        self._told: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()
        self.client.start_stream(lambda result, error: self._told.put((result, error)), **options)

    def __enter__(self) -> "Streaming":
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def repeat(self, count: int, size: int = 1, end: int = EMPTY, **options: Any) -> str:
        """Ask `repeat`; the request's id."""
        request_id = f"r{secrets.token_hex(6)}"
        self.client.async_stream_infer("repeat", [order(count, size, end)], request_id=request_id, **options)
        return request_id

    def next(self) -> Any:
        """The next response. Raises the next error."""
        result, error = self._told.get(timeout=SECONDS)
        if error is not None:
            raise error
        return result


def order(count: int, size: int, end: int) -> triton.InferInput:
    given = triton.InferInput("ORDER", [3], "INT32")
    given.set_data_from_numpy(np.array([count, size, end], np.int32))
    return given


def is_final(result: Any) -> bool:
    return bool(result.get_response().parameters["triton_final_response"].bool_param)


@pytest.mark.parametrize("end", [EMPTY, LAST])
@pytest.mark.parametrize("count", [0, 1, 3, 1000])
def test_any_number_of_responses(streams: Streams, count: int, end: int) -> None:
    with Streaming(streams) as stream:
        request_id = stream.repeat(count, 2, end, enable_empty_final_response=True)
        for number in range(count):
            result = stream.next()
            assert result.as_numpy("OUT").tolist() == [number, number]
            response = result.get_response()
            assert (response.id, response.model_name, response.model_version) == (request_id, "repeat", "1")
            assert is_final(result) == (end == LAST and number == count - 1)
        if end == EMPTY or not count:
            result = stream.next()
            assert is_final(result)
            assert not result.get_response().outputs


def test_large_responses(streams: Streams) -> None:
    with Streaming(streams) as stream:
        stream.repeat(40, 1 << 20, LAST)
        for number in range(40):
            assert np.array_equal(stream.next().as_numpy("OUT"), np.full(1 << 20, number, np.int32))
    until(lambda: streams.server.shm_bytes() < 16 << 20, SECONDS, "the memory is given back")


def test_an_error_after_responses(streams: Streams) -> None:
    with Streaming(streams) as stream:
        stream.repeat(2, end=ERROR)
        assert [stream.next().as_numpy("OUT").tolist() for _ in range(2)] == [[0], [1]]
        with pytest.raises(InferenceServerException) as caught:
            stream.next()
        assert (caught.value.status(), caught.value.message()) == (None, "that was it")
        stream.repeat(1)
        assert stream.next().as_numpy("OUT").tolist() == [0]


def test_in_strict_mode_the_error_is_the_streams_status(streams: Streams) -> None:
    with Streaming(streams, headers={"triton_grpc_error": "true"}) as stream:
        stream.repeat(0, end=ERROR)
        with pytest.raises(InferenceServerException) as caught:
            stream.next()
        assert (caught.value.status(), caught.value.message()) == ("StatusCode.UNAVAILABLE", "that was it")


def test_both_kinds_of_model_on_one_stream(streams: Streams) -> None:
    given = triton.InferInput("IN", [3], "FP32")
    given.set_data_from_numpy(np.ones(3, np.float32))
    with Streaming(streams) as stream:
        wanted: dict[str, list[str]] = {"repeat": [], "echo": []}
        for number in range(20):
            wanted["repeat"] += [stream.repeat(5)] * 5
            stream.client.async_stream_infer("echo", [given], request_id=str(number))
            wanted["echo"].append(str(number))
        told: dict[str, list[str]] = {"repeat": [], "echo": []}
        for _ in range(20 * 6):
            response = stream.next().get_response()
            told[response.model_name].append(response.id)
    assert told["echo"] == wanted["echo"]
    assert sorted(told["repeat"]) == sorted(wanted["repeat"])


def test_a_slow_reader_holds_up_its_model_and_nobody_else(streams: Streams) -> None:
    count, size = 500, 25_000
    request = service_pb2.ModelInferRequest(model_name="repeat", id="slow-reader")
    request.inputs.add(name="ORDER", datatype="INT32", shape=[3])
    request.raw_input_contents.append(np.array([count, size, LAST], np.int32).tobytes())
    window = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65_535)]  # else the client takes megabytes
    with grpc.insecure_channel(streams.server.address("grpc"), window) as channel:
        call = channel.stream_stream(
            METHOD, lambda m: m.SerializeToString(), service_pb2.ModelStreamInferResponse.FromString
        )
        responses = call(iter([request]), timeout=SECONDS)
        told = [next(responses)]
        before = -1
        while before != (before := streams.sent("slow-reader")):
            with Streaming(streams) as other:
                other.repeat(300, end=LAST)
                assert [other.next().as_numpy("OUT").tolist() for _ in range(300)] == [[n] for n in range(300)]
        assert before < count // 2
        told += responses
    numbers = [np.frombuffer(t.infer_response.raw_output_contents[0], np.int32) for t in told]
    assert [(int(n[0]), len(n)) for n in numbers] == [(number, size) for number in range(count)]


def test_a_client_that_leaves_stops_its_model(streams: Streams) -> None:
    with Streaming(streams) as stream:
        request_id = stream.repeat(1_000_000)
        stream.next()
        stream.client.stop_stream(cancel_requests=True)
    until(lambda: streams.is_cancelled(request_id), SECONDS, "the model knows")
    assert streams.sent(request_id) < 1_000_000
    with Streaming(streams) as stream:
        stream.repeat(1)
        stream.next()


def test_one_response_is_all_that_the_unary_call_can_take(streams: Streams) -> None:
    with triton.InferenceServerClient(streams.server.address("grpc")) as client:
        with pytest.raises(InferenceServerException) as caught:
            client.infer("repeat", [order(1, 1, LAST)])
        assert caught.value.status() == "StatusCode.UNIMPLEMENTED"
        assert caught.value.message() == "ModelInfer RPC doesn't support models with decoupled transaction policy"
