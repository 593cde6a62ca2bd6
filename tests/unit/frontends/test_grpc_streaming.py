"""One ModelStreamInfer, with the broker's side of the client played in memory."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest

from broker.messages import ErrorCode, Part, Response
from frontends.errors import RequestError
from frontends.grpc.messages import message
from frontends.grpc.stream import MAX_IN_FLIGHT, Streams
from shm.ref import TensorRef
from tests.support.memory_client import UNKNOWN, MemoryClient, service_of

SECONDS = 10.0
InferParameter = message("inference.InferParameter")
ENABLED = {"triton_enable_empty_final_response": InferParameter(bool_param=True)}
STRICT = {"triton_grpc_error": "true"}


def request_of(request_id: str, model: str = "m", **fields: Any) -> bytes:
    """A request with one input, whose block tells whether the blocks are given back."""
    request = message("inference.ModelInferRequest")(model_name=model, id=request_id, **fields)
    request.inputs.add(name="IN", datatype="FP32", shape=[1])
    request.raw_input_contents.append(b"1234")
    return bytes(request.SerializeToString())


def without_data(request_id: str) -> bytes:
    request = message("inference.ModelInferRequest")(model_name="m", id=request_id)
    request.inputs.add(name="IN")
    return bytes(request.SerializeToString())


def response(number: int = 0, part: int = Part.CONTENT | Part.FINAL) -> Response:
    output = TensorRef("OUT", "INT32", (1,), 4, number.to_bytes(4, "little"))
    return Response(7, ErrorCode.OK, "", "m", 3, (output,), {}, part)


def error(text: str, part: int = Part.CONTENT | Part.FINAL) -> Response:
    return Response(7, ErrorCode.UNAVAILABLE, text, "m", 3, (), {}, part)


END = Response(7, ErrorCode.OK, "", "m", 3, (), {}, Part.FINAL)


class Stream:
    """A stream under test: requests go in with `send`, `written` is what has come out."""

    def __init__(self, client: MemoryClient, metadata: dict[str, str]) -> None:
        self.client = client
        self.streams = Streams(service_of(client))
        self.written: list[Any] = []
        self.room = asyncio.Semaphore(1 << 30)
        self._requests: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.serving = asyncio.create_task(self.streams.serve(self._iterate(), self._write, metadata))

    def send(self, *requests: bytes) -> None:
        for request in requests:
            self._requests.put_nowait(request)

    def answer(self, request_id: str, *responses: Response) -> None:
        for each in responses:
            self.client.queue(request_id).put_nowait(each)

    async def settle(self) -> None:
        """Let everything happen that can."""
        for _ in range(50):
            await asyncio.sleep(0)

    async def end(self) -> list[Any]:
        """The client closes its half; what was written in all. Raises what ends the stream."""
        self._requests.put_nowait(None)
        await asyncio.wait_for(self.serving, SECONDS)
        return self.written

    @property
    def unread(self) -> int:
        return self._requests.qsize()

    async def _iterate(self) -> AsyncIterator[bytes]:
        while (request := await self._requests.get()) is not None:
            yield request

    async def _write(self, data: bytes) -> None:
        await self.room.acquire()
        self.written.append(message("inference.ModelStreamInferResponse").FromString(data))


def run(scenario: Any, metadata: dict[str, str] | None = None, **client: Any) -> MemoryClient:
    """Run `scenario(stream)` and return the client."""
    memory = MemoryClient(**client)

    async def play() -> None:
        played: Coroutine[Any, Any, None] = scenario(Stream(memory, metadata or {}))
        await asyncio.wait_for(played, SECONDS)

    asyncio.run(play())
    return memory


def ids(written: list[Any]) -> list[str]:
    return [each.infer_response.id for each in written]


def finals(written: list[Any]) -> list[bool | None]:
    """The flag `triton_final_response` of each message, None where there is none."""
    found = [each.infer_response.parameters.get("triton_final_response") for each in written]
    return [None if flag is None else flag.bool_param for flag in found]


# ----------------------------------------------------------------------------------------------- responses


def test_a_response() -> None:
    async def scenario(stream: Stream) -> None:
        stream.send(request_of("a", model_version="3"))
        stream.answer("a", response(5)._replace(parameters={"reason": "stop"}))
        (told,) = await stream.end()
        assert told.error_message == ""
        answer = told.infer_response
        assert (answer.id, answer.model_name, answer.model_version) == ("a", "m", "3")
        assert list(answer.raw_output_contents) == [b"\5\0\0\0"]
        assert answer.parameters["reason"].string_param == "stop"
        assert finals([told]) == [True]

    client = run(scenario)
    (sent,) = client.sent
    assert (sent.model, sent.version, sent.endpoint) == ("m", 3, "")
    assert client.done == [*response(5).outputs]
    assert client.lent == [0]
    assert client.released == client.cancelled == []


def test_any_number_of_responses() -> None:
    async def scenario(stream: Stream) -> None:
        stream.send(request_of("none", "decoupled"), request_of("three", "decoupled"), request_of("last", "decoupled"))
        stream.answer("none", END)
        stream.answer("three", *[response(n, Part.CONTENT) for n in range(3)], END)
        stream.answer("last", response(0, Part.CONTENT), response(1))
        written = await stream.end()
        assert sorted(zip(ids(written), finals(written), strict=True)) == [
            ("last", False),
            ("last", True),
            ("three", False),
            ("three", False),
            ("three", False),
        ]

    run(scenario)


def test_an_empty_final_response_comes_if_asked_for() -> None:
    async def scenario(stream: Stream) -> None:
        stream.send(request_of("none", "decoupled", parameters=ENABLED))
        stream.send(request_of("one", "decoupled", parameters=ENABLED, model_version="3"))
        stream.send(request_of("last", "decoupled", parameters=ENABLED))
        stream.answer("none", END)
        stream.answer("one", response(0, Part.CONTENT), END)
        stream.answer("last", response(0, Part.CONTENT), response(1))
        written = await stream.end()
        told = {(each.infer_response.id, flag): each for each, flag in zip(written, finals(written), strict=True)}
        assert sorted(told) == [("last", False), ("last", True), ("none", True), ("one", False), ("one", True)]
        empty = told["one", True].infer_response
        assert (empty.model_name, empty.model_version, len(empty.outputs)) == ("decoupled", "3", 0)
        assert told["none", True].infer_response.model_version == ""
        assert not told["one", True].error_message
        assert len(told["last", True].infer_response.outputs) == 1

    run(scenario)


# ----------------------------------------------------------------------------------------------- errors


def test_an_error_is_told_in_the_stream_which_goes_on() -> None:
    async def scenario(stream: Stream) -> None:
        stream.send(request_of("a", model_version="3"), request_of("b"))
        stream.answer("a", error("it broke"))
        stream.answer("b", response())
        failed, good = await stream.end()
        assert failed.error_message == "it broke"
        answer = failed.infer_response
        assert (answer.id, answer.model_name, answer.model_version) == ("a", "m", "3")
        assert finals([failed, good]) == [True, True]
        assert not good.error_message

    run(scenario)


def test_a_refusal_has_nothing_but_the_id() -> None:
    async def scenario(stream: Stream) -> None:
        stream.send(without_data("a"), request_of("b"), request_of("c", model_version="x"), without_data(""))
        stream.answer("b", error("queue is full", Part.FINAL))
        written = await stream.end()
        assert [each.error_message for each in written] == [
            "unable to find data for input tensor 'IN' for model 'm' in request.",
            "queue is full",
            "failed to get model version from specified version string 'x' (details: stol), "
            "version should be an integral value > 0",
            "unable to find data for input tensor 'IN' for model 'm' in request.",
        ]
        assert ids(written) == ["a", "b", "c", ""]
        assert all(each.HasField("infer_response") and not each.infer_response.model_name for each in written)
        assert finals(written) == [None] * 4

    run(scenario)


def test_an_unknown_model_is_the_first_error() -> None:
    async def scenario(stream: Stream) -> None:
        stream.send(without_data("a"))
        (told,) = await stream.end()
        assert told.error_message == UNKNOWN

    run(scenario, known=False)


def test_an_output_that_cannot_be_read_is_an_error_and_given_back() -> None:
    async def scenario(stream: Stream) -> None:
        lost = response(0, Part.CONTENT)
        stream.send(request_of("a", "decoupled"))
        stream.answer("a", lost._replace(outputs=(lost.outputs[0]._replace(data=None),)), response(1))
        first, second = await stream.end()
        assert first.error_message == "the output of model 'm' is lost: ''"
        assert finals([first, second]) == [False, True]

    assert len(run(scenario).done) == 2


def test_in_strict_mode_an_error_ends_the_stream_and_cancels_the_rest() -> None:
    async def scenario(stream: Stream) -> None:
        stream.send(without_data("refused"), request_of("bad"), request_of("other", "decoupled"))
        await stream.settle()
        stream.answer("bad", error("it broke"))
        with pytest.raises(RequestError) as caught:
            await stream.serving
        assert (caught.value.code, caught.value.message) == (ErrorCode.UNAVAILABLE, "it broke")
        assert ids(stream.written) == ["refused"]

    assert run(scenario, STRICT).cancelled == ["other"]


def test_only_true_is_strict() -> None:
    async def scenario(stream: Stream) -> None:
        stream.send(request_of("a"))
        stream.answer("a", error("it broke"))
        assert [told.error_message for told in await stream.end()] == ["it broke"]

    run(scenario, {"triton_grpc_error": "1"})


def test_a_message_that_is_no_request_ends_the_stream() -> None:
    async def scenario(stream: Stream) -> None:
        stream.send(b"\xff")
        with pytest.raises(RequestError) as caught:
            await stream.serving
        assert caught.value.message.startswith("failed to parse the request message: ")

    run(scenario)


# ----------------------------------------------------------------------------------------------- order


def test_responses_come_in_the_order_of_the_requests() -> None:
    async def scenario(stream: Stream) -> None:
        stream.send(request_of("a"), request_of("b"), without_data("c"), request_of("d"))
        stream.answer("d", response())
        stream.answer("b", error("it broke"))
        await stream.settle()
        assert stream.written == []
        stream.answer("a", response())
        assert ids(await stream.end()) == ["a", "b", "c", "d"]

    run(scenario)


def test_responses_of_decoupled_models_wait_for_nobody_and_hold_up_nobody() -> None:
    async def scenario(stream: Stream) -> None:
        stream.send(request_of("slow"), request_of("free", "decoupled"), request_of("next"))
        stream.answer("free", response(0, Part.CONTENT))
        await stream.settle()
        assert ids(stream.written) == ["free"]
        stream.answer("slow", response())
        stream.answer("next", response())
        await stream.settle()
        assert ids(stream.written) == ["free", "slow", "next"]
        stream.answer("free", END)
        assert len(await stream.end()) == 3

    run(scenario)


def test_requests_are_sent_in_their_order() -> None:
    async def scenario(stream: Stream) -> None:
        names = [str(number) for number in range(100)]
        stream.send(*[request_of(name) for name in names])
        for name in names:
            stream.answer(name, response())
        assert ids(await stream.end()) == names

    assert [sent.request_id for sent in run(scenario).sent] == [str(number) for number in range(100)]


# ----------------------------------------------------------------------------------------------- flow


def test_the_next_response_is_asked_for_when_the_client_has_room() -> None:
    async def scenario(stream: Stream) -> None:
        stream.room = asyncio.Semaphore(2)
        stream.send(request_of("a", "decoupled"))
        stream.answer("a", *[response(n, Part.CONTENT) for n in range(9)], END)
        await stream.settle()
        assert len(stream.written) == 2
        assert stream.client.queue("a").qsize() == 7  # the third waits to be written, six and the end are not taken
        for _ in range(100):
            stream.room.release()
        assert len(await stream.end()) == 9

    run(scenario)


def test_no_more_requests_are_read_than_may_be_under_way() -> None:
    async def scenario(stream: Stream) -> None:
        stream.send(*[request_of(str(number)) for number in range(MAX_IN_FLIGHT + 10)])
        for _ in range(MAX_IN_FLIGHT // 10):
            await stream.settle()
        assert len(stream.client.sent) == MAX_IN_FLIGHT
        assert stream.unread == 9  # one is read and waits
        stream.answer("0", response())
        await stream.settle()
        assert len(stream.client.sent) == MAX_IN_FLIGHT + 1
        for number in range(1, MAX_IN_FLIGHT + 10):
            stream.answer(str(number), response())
        assert len(await stream.end()) == MAX_IN_FLIGHT + 10

    run(scenario)


# ----------------------------------------------------------------------------------------------- the end


@pytest.mark.parametrize("turns", range(12))
def test_when_the_client_leaves_everything_is_cancelled_and_given_back(turns: int) -> None:
    async def scenario(stream: Stream) -> None:
        stream.send(request_of("a"), request_of("b", "decoupled"), request_of("c"))
        stream.answer("b", response(0, Part.CONTENT))
        stream.answer("c", response())
        for _ in range(turns):
            await asyncio.sleep(0)
        stream.serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stream.serving

    client = run(scenario)
    assert sorted(client.lent + client.released) == client.blocks
    assert {*client.cancelled} >= {sent.request_id for sent in client.sent} - {"c"}
    assert len(client.done) == 2 - client.queue("b").qsize() - client.queue("c").qsize()


def test_a_server_that_drains_finishes_what_is_under_way() -> None:
    async def scenario(stream: Stream) -> None:
        stream.send(request_of("a"))
        await stream.settle()
        stream.streams.close()
        stream.send(request_of("too late"))
        await stream.settle()
        stream.answer("a", response())
        with pytest.raises(RequestError) as caught:
            await stream.serving
        assert caught.value.code == ErrorCode.UNAVAILABLE
        assert caught.value.message == "GRPC server is shutting down and has stopped accepting new requests."
        assert ids(stream.written) == ["a"]

    run(scenario)


def test_a_stream_whose_client_is_done_ends_well_also_when_the_server_drains() -> None:
    async def scenario(stream: Stream) -> None:
        stream.send(request_of("a"))
        ending = asyncio.create_task(stream.end())
        await stream.settle()
        stream.streams.close()
        stream.answer("a", response())
        assert ids(await ending) == ["a"]

    run(scenario)
