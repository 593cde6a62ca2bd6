"""Raw contents cut out of requests and put into responses agree with what protobuf itself would do."""

import mmap

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from broker.messages import ErrorCode
from frontends.errors import RequestError
from frontends.grpc.messages import message
from frontends.grpc.wire import join_response, join_stream_response, split_request

UNKNOWN_VARINT_FIELD = b"\x98\x06\x01"  # number 99
RAW = st.lists(st.binary(max_size=300), max_size=4)


@given(model=st.text(max_size=5), inputs=st.lists(st.text(max_size=200), max_size=3), raw=RAW)
def test_split_request_is_what_protobuf_reads(model: str, inputs: list[str], raw: list[bytes]) -> None:
    request = service_pb2.ModelInferRequest(model_name=model, raw_input_contents=raw)
    for name in inputs:
        request.inputs.add(name=name)
    rest, cut = split_request(request.SerializeToString())
    assert [bytes(contents) for contents in cut] == raw
    assert not rest.raw_input_contents
    request.ClearField("raw_input_contents")
    assert rest.SerializeToString(deterministic=True) == request.SerializeToString(deterministic=True)


def test_raw_contents_may_stand_anywhere() -> None:
    data = b"".join(
        service_pb2.ModelInferRequest(**field).SerializeToString()
        for field in (
            {"raw_input_contents": [b"first"]},
            {"model_name": "m"},
            {"raw_input_contents": [b"", b"third"]},
            {"id": "7"},
        )
    )
    request, raw = split_request(data)
    assert (request.model_name, request.id) == ("m", "7")
    assert [bytes(contents) for contents in raw] == [b"first", b"", b"third"]


def test_raw_contents_are_not_copied() -> None:
    data = service_pb2.ModelInferRequest(raw_input_contents=[b"12345"]).SerializeToString()
    (contents,) = split_request(data)[1]
    assert isinstance(contents, memoryview)
    assert contents.obj is data


def test_unknown_fields_are_ignored() -> None:
    data = service_pb2.ModelInferRequest(model_name="m", raw_input_contents=[b"1"]).SerializeToString()
    request, raw = split_request(UNKNOWN_VARINT_FIELD + data)
    assert request.model_name == "m"
    assert list(raw) == [b"1"]


@given(data=st.binary(max_size=60))
def test_any_bytes_are_read_as_protobuf_reads_them(data: bytes) -> None:
    try:
        expected = service_pb2.ModelInferRequest.FromString(data)
    except Exception:
        with pytest.raises(RequestError):
            split_request(data)
    else:
        request, raw = split_request(data)
        assert [bytes(contents) for contents in raw] == list(expected.raw_input_contents)
        assert request.model_name == expected.model_name


@pytest.mark.parametrize("data", [b"\xff" * 100_000, b"\x3a\x05abc", b"\x3a", b"\x0a\x01\xff"])
def test_a_malformed_request_is_refused(data: bytes) -> None:
    with pytest.raises(RequestError) as caught:
        split_request(data)
    assert caught.value.code == ErrorCode.INTERNAL
    assert caught.value.message.startswith("failed to parse the request message: ")


@given(raw=RAW, outputs=st.lists(st.text(max_size=200), max_size=3))
def test_join_response_is_what_protobuf_writes(raw: list[bytes], outputs: list[str]) -> None:
    response = message("inference.ModelInferResponse")(model_name="m", model_version="1")
    for name in outputs:
        response.outputs.add(name=name)
    joined = join_response(response, [memoryview(contents) for contents in raw])
    response.raw_output_contents.extend(raw)
    assert joined == response.SerializeToString()


@given(raw=RAW, model=st.text(max_size=200))
def test_join_stream_response_is_what_protobuf_writes(raw: list[bytes], model: str) -> None:
    response = message("inference.ModelInferResponse")(model_name=model)
    joined = join_stream_response(response, raw)
    response.raw_output_contents.extend(raw)
    expected = message("inference.ModelStreamInferResponse")(infer_response=response)
    assert joined == expected.SerializeToString()


def test_a_response_that_grpc_cannot_carry_is_refused() -> None:
    response = message("inference.ModelInferResponse")(model_name="m")
    with mmap.mmap(-1, 2**31) as untouched:
        for join, size in ((join_response, 2**31 + 9), (join_stream_response, 2**31 + 15)):
            with pytest.raises(RequestError) as caught:
                join(response, [untouched])
            assert caught.value.code == ErrorCode.INVALID_ARG
            assert caught.value.message == (
                f"Response has byte size {size} which exceeds gRPC's byte size limit 2147483647."
            )
