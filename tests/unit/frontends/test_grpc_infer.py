"""One ModelInfer from bytes to bytes, with the broker's side of the client played in memory."""

import asyncio
from typing import Any

import pytest

from broker.messages import Answer, ErrorCode, GetModelMetadata, Infer, Response
from frontends.errors import RequestError
from frontends.grpc.infer import infer
from frontends.grpc.messages import message
from shm import copies
from shm.arena import ArenaFull
from shm.ref import TensorRef

UNKNOWN = "Request for unknown model: 'm' is not found"


class MemoryClient:
    """What `infer` uses of `broker.client.Client`: blocks are numbers, and the broker answers what it is told to."""

    def __init__(self, response: Response | None = None, *, known: bool = True, room: int = 10) -> None:
        self.response = response
        self.known = known
        self.room = room
        self.asked: list[Infer] = []
        self.blocks: list[int] = []
        self.sent: list[int] = []
        self.released: list[int] = []
        self.done: tuple[TensorRef, ...] | None = None
        self.regions = self

    def number(self) -> int:
        return 7

    async def store(
        self, _model: str, name: str, datatype: str, shape: tuple[int, ...], data: Any, blocks: list[int]
    ) -> TensorRef:
        if len(self.blocks) == self.room:
            raise ArenaFull("no room for 4 bytes", is_final=False)
        self.blocks.append(len(self.blocks))
        blocks.append(self.blocks[-1])
        await asyncio.sleep(0)
        return TensorRef(name, datatype, shape, len(data), bytes(data))

    async def infer(self, request: Infer, blocks: list[int]) -> Response:
        self.asked.append(request)
        self.sent += blocks
        assert self.response is not None
        return self.response

    async def ask(self, question: GetModelMetadata, number: int) -> Answer:
        assert question == GetModelMetadata(number, "m", -1)
        return Answer(number, *((ErrorCode.OK, "", {}) if self.known else (ErrorCode.NOT_FOUND, UNKNOWN, None)))

    def release(self, blocks: list[int]) -> None:
        self.released += blocks

    def view(self, ref: TensorRef) -> bytes:
        if ref.data is None:
            raise KeyError(ref.region)
        return ref.data

    def done_with(self, outputs: tuple[TensorRef, ...]) -> None:
        self.done = outputs


def request_of(num_inputs: int = 1, **fields: Any) -> bytes:
    request = message("inference.ModelInferRequest")(model_name="m", id="q", **fields)
    for index in range(num_inputs):
        request.inputs.add(name=f"INPUT{index}", datatype="FP32", shape=[1])
        request.raw_input_contents.append(b"1234")
    return bytes(request.SerializeToString())


def run(client: Any, data: bytes) -> Any:
    return message("inference.ModelInferResponse").FromString(asyncio.run(infer(client, data)))


OUTPUTS = (TensorRef("Y", "FP32", (1, 2), 8, b"12345678"), TensorRef("Z", "BYTES", (), 0, b""))
OK = Response(7, ErrorCode.OK, "", "m", 3, OUTPUTS, {"reason": "stop"})


def test_the_request_reaches_the_broker() -> None:
    client = MemoryClient(OK)
    parameters = {
        "mine": message("inference.InferParameter")(int64_param=1),
        "sequence_id": message("inference.InferParameter")(int64_param=9),
        "sequence_end": message("inference.InferParameter")(bool_param=True),
        "priority": message("inference.InferParameter")(int64_param=2),
        "timeout": message("inference.InferParameter")(int64_param=3),
    }
    run(client, request_of(model_version="3", parameters=parameters, outputs=[{"name": "Y"}]))
    (asked,) = client.asked
    assert asked.received > 0
    assert asked._replace(received=0.0) == Infer(
        request=7,
        model="m",
        version=3,
        request_id="q",
        inputs=(TensorRef("INPUT0", "FP32", (1,), 4, b"1234"),),
        outputs=("Y",),
        parameters={"mine": 1},
        correlation_id=9,
        flags=2,
        priority=2,
        timeout_us=3,
        is_raw=False,
        received=0.0,
        endpoint="ModelInfer RPC",
    )
    assert client.sent == client.blocks
    assert client.released == []


def test_the_response_reaches_the_client() -> None:
    client = MemoryClient(OK)
    copies.by_place.clear()
    response = run(client, request_of())
    assert (response.model_name, response.model_version, response.id) == ("m", "3", "q")
    assert [(o.name, o.datatype, list(o.shape)) for o in response.outputs] == [
        ("Y", "FP32", [1, 2]),
        ("Z", "BYTES", []),
    ]
    assert not any(o.HasField("contents") or o.parameters for o in response.outputs)
    assert list(response.raw_output_contents) == [b"12345678", b""]
    assert response.parameters["reason"].string_param == "stop"
    assert client.done == OUTPUTS
    assert copies.by_place == {"response": 8}


def test_an_error_reaches_the_client() -> None:
    client = MemoryClient(Response(7, ErrorCode.UNAVAILABLE, "Exceeds maximum queue size", "m", 3, (), {}))
    with pytest.raises(RequestError) as caught:
        run(client, request_of())
    assert (caught.value.code, caught.value.message) == (ErrorCode.UNAVAILABLE, "Exceeds maximum queue size")


def test_outputs_that_cannot_be_read_are_given_back() -> None:
    client = MemoryClient(OK._replace(outputs=(OUTPUTS[0]._replace(data=None),)))
    with pytest.raises(RequestError) as caught:
        run(client, request_of())
    assert (caught.value.code, caught.value.message) == (ErrorCode.INTERNAL, "the output of model 'm' is lost: ''")
    assert client.done is not None


@pytest.mark.parametrize(("known", "error"), [(True, "no room for 4 bytes"), (False, UNKNOWN)])
def test_without_room_the_request_is_refused(known: bool, error: str) -> None:
    client = MemoryClient(known=known, room=1)
    with pytest.raises(RequestError) as caught:
        run(client, request_of(2))
    assert caught.value.message == error
    assert caught.value.code == (ErrorCode.UNAVAILABLE if known else ErrorCode.NOT_FOUND)
    assert client.released == client.blocks == [0]


@pytest.mark.parametrize(("known", "code"), [(True, ErrorCode.INVALID_ARG), (False, ErrorCode.NOT_FOUND)])
def test_an_unknown_model_is_the_first_error(known: bool, code: int) -> None:
    client = MemoryClient(known=known)
    with pytest.raises(RequestError) as caught:
        run(client, request_of(inputs=[{"name": "without data"}], num_inputs=1))
    assert caught.value.code == code


def test_a_wrong_version_is_an_error_before_the_unknown_model() -> None:
    with pytest.raises(RequestError) as caught:
        run(MemoryClient(known=False), request_of(model_version="-1"))
    assert caught.value.message.startswith("invalid model version specified '-1'")


def test_a_cancelled_request_gives_its_blocks_back() -> None:
    async def cancel_while_storing(client: Any) -> None:
        task = asyncio.create_task(infer(client, request_of(2)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    client = MemoryClient(OK)
    asyncio.run(cancel_while_storing(client))
    assert client.released == client.blocks == [0]
    assert client.asked == []
