"""One ModelInfer from bytes to bytes, with the broker's side of the client played in memory."""

import asyncio
from typing import Any

import pytest

from broker.messages import ErrorCode, GetLabels, GetModelMetadata, Infer, Response, Target
from frontends.errors import RequestError
from frontends.grpc.infer import infer
from frontends.grpc.messages import message
from frontends.grpc.requests import MAX_DESCRIPTION
from shm import copies
from shm.ref import TensorRef
from tests.support.memory_client import UNKNOWN, MemoryClient, service_of

InferParameter = message("inference.InferParameter")
OUTPUTS = (TensorRef("Y", "FP32", (1, 2), 8, b"\0\0\0@\0\0\x80?"), TensorRef("Z", "BYTES", (), 0, b""))
OK = Response(7, ErrorCode.OK, "", "m", 3, OUTPUTS, {"reason": "stop"})


def request_of(num_inputs: int = 1, **fields: Any) -> bytes:
    request = message("inference.ModelInferRequest")(**{"model_name": "m", "id": "q", **fields})
    for index in range(num_inputs):
        request.inputs.add(name=f"INPUT{index}", datatype="FP32", shape=[1])
        request.raw_input_contents.append(b"1234")
    return bytes(request.SerializeToString())


def run(client: MemoryClient, data: bytes, metadata: dict[str, Any] | None = None, pattern: str = "") -> Any:
    answer = asyncio.run(infer(service_of(client, pattern), data, metadata or {}, lambda call: call(None)))
    return message("inference.ModelInferResponse").FromString(answer)


def refused(client: MemoryClient, data: bytes, *details: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        run(client, data, *details)
    return caught.value


# ----------------------------------------------------------------------------------------------- the way in


def test_the_request_reaches_the_broker() -> None:
    client = MemoryClient(OK)
    parameters = {
        "mine": InferParameter(int64_param=1),
        "sequence_id": InferParameter(int64_param=9),
        "sequence_end": InferParameter(bool_param=True),
        "priority": InferParameter(int64_param=2),
        "timeout": InferParameter(int64_param=3),
    }
    context = {"traceparent": "00-1-2-01", "tracestate": "x=y"}
    run(client, request_of(model_version="3", parameters=parameters, outputs=[{"name": "Y"}]), context)
    (sent,) = client.sent
    assert sent.received > 0
    assert sent._replace(received=0.0) == Infer(
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
        traceparent="00-1-2-01",
        tracestate="x=y",
    )
    assert client.lent == client.blocks
    assert client.released == []


def test_tensors_in_the_clients_memory_are_passed_as_references() -> None:
    def place(region: str, offset: int, byte_size: int) -> dict[str, Any]:
        return {
            "shared_memory_region": InferParameter(string_param=region),
            "shared_memory_offset": InferParameter(int64_param=offset),
            "shared_memory_byte_size": InferParameter(int64_param=byte_size),
        }

    client = MemoryClient(OK)
    inputs = [{"name": "IN", "datatype": "FP32", "shape": [2], "parameters": place("in", 16, 8)}]
    outputs = [{"name": "Y", "parameters": place("out", 32, 64)}, {"name": "Z"}]
    run(client, request_of(inputs=inputs, outputs=outputs))
    (sent,) = client.sent
    assert sent.inputs == (
        TensorRef("IN", "FP32", (2,), 8, None, "@in", 16),
        TensorRef("INPUT0", "FP32", (1,), 4, b"1234"),  # its raw contents are the first: IN has none
    )
    assert sent.outputs == ("Y", "Z")
    assert sent.targets == (Target("Y", "@out", 32, 64),)


def test_matching_metadata_become_parameters_behind_the_bodys() -> None:
    client = MemoryClient(OK)
    metadata = {"x-user": "alice", "y": "no", "x-raw-bin": b"\xe9"}
    run(client, request_of(parameters={"mine": InferParameter(int64_param=1)}), metadata, "^X-")
    assert list(client.sent[0].parameters.items()) == [("mine", 1), ("x-user", "alice"), ("x-raw-bin", "\xe9")]


def test_metadata_with_a_reserved_name_are_refused() -> None:
    error = refused(MemoryClient(OK), request_of(), {"sequence_id": "1"}, "sequence")
    assert error.code == ErrorCode.INVALID_ARG
    assert error.message == "Header 'sequence_id' is reserved for Triton usage and cannot be forwarded."


# ----------------------------------------------------------------------------------------------- the way out


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
    assert list(response.raw_output_contents) == [OUTPUTS[0].data, b""]
    assert response.parameters["reason"].string_param == "stop"
    assert tuple(client.done) == OUTPUTS
    assert copies.by_place == {"response": 8}


def test_an_output_in_the_clients_memory_has_no_contents() -> None:
    outputs = (TensorRef("Y", "FP32", (2,), 8, None, "@4", 16), OUTPUTS[1])
    response = run(MemoryClient(OK._replace(outputs=outputs)), request_of())
    assert [(o.name, list(o.shape), len(o.parameters)) for o in response.outputs] == [("Y", [2], 0), ("Z", [], 0)]
    assert list(response.raw_output_contents) == [b"", b""]


def test_an_output_is_classified() -> None:
    client = MemoryClient(OK, content={"is_batched": True, "labels": {"Y": ("cat", "dog")}})
    outputs = [{"name": "Z"}, {"name": "Y", "parameters": {"classification": InferParameter(int64_param=5)}}]
    response = run(client, request_of(outputs=outputs))
    assert client.asked == [GetLabels(7, "m", 3)]
    assert [(o.name, o.datatype, list(o.shape)) for o in response.outputs] == [
        ("Y", "BYTES", [1, 2]),
        ("Z", "BYTES", []),
    ]
    assert response.raw_output_contents[0] == b"\x0e\0\0\x002.000000:0:cat\x0e\0\0\x001.000000:1:dog"
    assert client.sent[0].outputs == ("Z", "Y")
    assert tuple(client.done) == OUTPUTS


def test_an_output_that_cannot_be_classified_is_an_error() -> None:
    client = MemoryClient(OK, content={"is_batched": False, "labels": {}})
    outputs = [{"name": "Z", "parameters": {"classification": InferParameter(int64_param=1)}}]
    error = refused(client, request_of(outputs=outputs))
    assert error.code == ErrorCode.INVALID_ARG
    assert error.message == "class result not available for output due to unsupported type 'BYTES'"
    assert tuple(client.done) == OUTPUTS


def test_an_error_reaches_the_client() -> None:
    client = MemoryClient(Response(7, ErrorCode.UNAVAILABLE, "Exceeds maximum queue size", "m", 3, (), {}))
    error = refused(client, request_of())
    assert (error.code, error.message) == (ErrorCode.UNAVAILABLE, "Exceeds maximum queue size")


def test_outputs_that_cannot_be_read_are_given_back() -> None:
    client = MemoryClient(OK._replace(outputs=(OUTPUTS[0]._replace(data=None),)))
    error = refused(client, request_of())
    assert (error.code, error.message) == (ErrorCode.INTERNAL, "the output of model 'm' is lost: ''")
    assert len(client.done) == 1


# ----------------------------------------------------------------------------------------------- which error wins


@pytest.mark.parametrize(("known", "error"), [(True, "no room for 4 bytes"), (False, UNKNOWN)])
def test_without_room_the_request_is_refused(known: bool, error: str) -> None:
    client = MemoryClient(known=known, room=1)
    refusal = refused(client, request_of(2))
    assert refusal.message == error
    assert refusal.code == (ErrorCode.UNAVAILABLE if known else ErrorCode.NOT_FOUND)
    assert client.released == client.blocks == [0]
    assert client.asked == [GetModelMetadata(7, "m", -1)]


@pytest.mark.parametrize(("known", "code"), [(True, ErrorCode.INVALID_ARG), (False, ErrorCode.NOT_FOUND)])
def test_an_unknown_model_is_the_first_error(known: bool, code: int) -> None:
    assert refused(MemoryClient(known=known), request_of(inputs=[{"name": "without data"}])).code == code


def test_a_decoupled_model_is_refused_before_anything_that_is_wrong_with_the_request() -> None:
    error = refused(MemoryClient(), request_of(model_name="decoupled", inputs=[{"name": "without data"}]))
    assert error.code == ErrorCode.UNSUPPORTED
    assert error.message == "ModelInfer RPC doesn't support models with decoupled transaction policy"


def test_a_request_that_is_large_without_its_tensors_is_refused() -> None:
    text = InferParameter(string_param="x" * MAX_DESCRIPTION)
    error = refused(MemoryClient(OK), request_of(parameters={"prompt": text}))
    assert error.code == ErrorCode.INVALID_ARG
    assert error.message.startswith("the request without its tensors has ")


def test_tensors_may_be_large() -> None:
    values = [0.0] * (MAX_DESCRIPTION // 4)
    inputs = [{"name": "A", "datatype": "FP32", "shape": [len(values)], "contents": {"fp32_contents": values}}]
    client = MemoryClient(OK)
    run(client, request_of(0, inputs=inputs))
    assert client.sent[0].inputs[0].byte_size == MAX_DESCRIPTION


def test_a_wrong_version_is_an_error_before_the_unknown_model() -> None:
    error = refused(MemoryClient(known=False), request_of(model_version="-1"))
    assert error.message.startswith("invalid model version specified '-1'")


def test_a_cancelled_request_gives_its_blocks_back() -> None:
    async def cancel_while_storing(client: MemoryClient) -> None:
        task = asyncio.create_task(infer(service_of(client), request_of(2), {}, lambda call: call(None)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    client = MemoryClient(OK)
    asyncio.run(cancel_while_storing(client))
    assert client.released == client.blocks == [0]
    assert client.sent == []
