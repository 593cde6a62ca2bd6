"""Inputs of a ModelInferRequest in binary form, and the texts that say why there is none."""

import struct
from typing import Any

import numpy as np
import pytest
from tritonclient.utils import serialize_byte_tensor

from broker.messages import ErrorCode
from frontends.errors import RequestError
from frontends.grpc.messages import message
from frontends.grpc.tensors import InputTensor, input_tensors
from shm.ref import TensorRef

InferParameter = message("inference.InferParameter")
FIELD_OF = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}
NUMPY_NAME = {"BOOL": "bool", "FP32": "float32", "FP64": "float64"}


def request_with(*inputs: dict[str, Any]) -> Any:
    request = message("inference.ModelInferRequest")(model_name="m")
    for fields in inputs:
        request.inputs.add(**{"name": "X", "datatype": "FP32", "shape": [1], **fields})
    return request


def refused(request: Any, *raw: bytes) -> RequestError:
    with pytest.raises(RequestError) as caught:
        input_tensors(request, raw)
    return caught.value


def test_raw_contents_belong_to_the_inputs_in_order() -> None:
    request = request_with({"name": "A", "shape": [2]}, {"name": "B", "datatype": "BYTES", "shape": []})
    assert input_tensors(request, [b"12345678", b"", b"extra"]) == [
        InputTensor("A", "FP32", (2,), b"12345678"),
        InputTensor("B", "BYTES", (), b""),
    ]


@pytest.mark.parametrize("datatype", FIELD_OF)
def test_typed_contents_become_binary(datatype: str) -> None:
    dtype = np.dtype(NUMPY_NAME.get(datatype, datatype.lower()))
    low, high = (0, 1) if dtype.kind in "bf" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    expected = np.array([low, high, 1], dtype)
    request = request_with({"datatype": datatype, "contents": {FIELD_OF[datatype]: expected.tolist()}})
    (tensor,) = input_tensors(request, [])
    assert tensor.data == expected.tobytes()


def test_typed_bytes_get_their_lengths() -> None:
    elements = [b"one", b"", b"\x00\xff"]
    request = request_with({"datatype": "BYTES", "contents": {"bytes_contents": elements}})
    assert input_tensors(request, [])[0].data == serialize_byte_tensor(np.array(elements, np.object_)).item()


def test_typed_values_beyond_a_narrow_datatype_keep_their_low_bits() -> None:
    request = request_with(
        {"datatype": "INT8", "contents": {"int_contents": [300, -200]}},
        {"datatype": "UINT16", "contents": {"uint_contents": [65536 + 7]}},
    )
    narrow, wide = input_tensors(request, [])
    assert narrow.data == struct.pack("<bb", 300 - 256, -200 + 256)
    assert wide.data == struct.pack("<H", 7)


def test_empty_typed_contents_are_an_empty_tensor() -> None:
    request = request_with({"shape": [0], "contents": {}})
    assert input_tensors(request, []) == [InputTensor("X", "FP32", (0,), b"")]


@pytest.mark.parametrize(
    ("datatype", "field", "values", "held"),
    [
        ("FP32", "int_contents", [1], "INT32"),
        ("INT64", "int_contents", [1], "INT32"),
        ("INT32", "uint_contents", [1], "UINT32"),
        ("FP16", "fp32_contents", [1.0], "FP32"),
        ("FP32", "fp64_contents", [1.0], "FP64"),
        ("UINT8", "bool_contents", [True], "BOOL"),
        ("FP32", "bytes_contents", [b""], "BYTES"),
    ],
)
def test_typed_contents_of_another_datatype_are_refused(
    datatype: str, field: str, values: list[Any], held: str
) -> None:
    error = refused(request_with({"datatype": datatype, "contents": {field: values}}))
    assert error.code == ErrorCode.INVALID_ARG
    assert error.message == (
        f"unexpected explicit tensor data for input tensor 'X' for model 'm' of type '{held}', expected datatype "
        f"'{datatype}'"
    )


def test_typed_contents_of_an_unknown_datatype_are_refused() -> None:
    error = refused(request_with({"datatype": "fp32", "contents": {"fp32_contents": [1.0]}}))
    assert error.message.endswith("of type 'FP32', expected datatype '<invalid>'")


def test_two_typed_contents_are_refused() -> None:
    error = refused(request_with({"contents": {"fp32_contents": [1.0], "fp64_contents": [1.0]}}))
    assert error.code == ErrorCode.INVALID_ARG
    assert error.message == (
        "unexpected explicit tensor data for input tensor 'X' for model 'm', binary data was already supplied."
    )


def test_typed_and_raw_contents_are_refused() -> None:
    error = refused(request_with({"contents": {"fp32_contents": [1.0]}}), b"1234")
    assert error.code == ErrorCode.INVALID_ARG
    assert error.message == ("contents field must not be specified when using raw_input_contents for 'X' for model 'm'")


@pytest.mark.parametrize("raw", [(), (b"1234",)])
def test_an_input_without_data_is_refused(raw: tuple[bytes, ...]) -> None:
    request = request_with(*[{"name": name} for name in ["A", "B"][: len(raw) + 1]])
    error = refused(request, *raw)
    assert error.code == ErrorCode.INVALID_ARG
    assert error.message == f"unable to find data for input tensor '{'AB'[len(raw)]}' for model 'm' in request."


PLACE = {
    "shared_memory_region": InferParameter(string_param="region0"),
    "shared_memory_byte_size": InferParameter(int64_param=4),
}


def test_an_input_in_the_clients_memory_is_a_reference_and_takes_no_raw_contents() -> None:
    request = request_with({"name": "A", "parameters": PLACE}, {"name": "B"})
    assert input_tensors(request, [b"1234"]) == [
        TensorRef("A", "FP32", (1,), 4, None, "@region0"),
        InputTensor("B", "FP32", (1,), b"1234"),
    ]


def test_an_input_in_the_clients_memory_with_contents_is_refused() -> None:
    error = refused(request_with({"parameters": PLACE, "contents": {"fp32_contents": [1.0]}}), b"1234")
    assert error.code == ErrorCode.INVALID_ARG
    assert error.message == (
        "unexpected 'content' provided when using shared memory for input tensor 'X' for model 'm'"
    )


def test_other_parameters_of_inputs_are_dropped() -> None:
    request = request_with({"parameters": {"mine": InferParameter(string_param="x")}})
    assert len(input_tensors(request, [b"1234"])) == 1
