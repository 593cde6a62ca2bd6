"""Inference requests and responses in JSON: what is read, in which order errors win, what is written."""

import json
from typing import Any

import pytest

from broker.messages import ErrorCode, Response, Target
from frontends.classification import Classes
from frontends.errors import RequestError
from frontends.http.codec import Input, Output, Request, Selection, decode_request, encode_response
from frontends.parameters import SEQUENCE_END, SEQUENCE_START, RequestParameters
from shm.arena import inline
from shm.ref import TensorRef

LIMIT = 1 << 20
ALL_AS_JSON = Selection({}, False)
INPUT = {"name": "IN", "datatype": "FP32", "shape": [1], "data": [1]}
NON_UNSIGNED = "attempt to access JSON non-unsigned-integer as unsigned-integer"


def decode(document: Any, binary: bytes = b"") -> Request:
    return decode_request(document, memoryview(binary), "m", LIMIT)


def request(**members: Any) -> dict[str, Any]:
    return {"inputs": [INPUT], **members}


def described(**members: Any) -> dict[str, Any]:
    return {**{name: value for name, value in INPUT.items() if name != "data"}, **members}


def refusal(document: Any, binary: bytes = b"") -> tuple[int, str]:
    with pytest.raises(RequestError) as caught:
        decode(document, binary)
    return caught.value.code, caught.value.message


# ----------------------------------------------------------------------------------------------- requests


def test_inputs_from_json_and_from_the_binary_section() -> None:
    binary = b"abcd" + b"\2\0\0\0hi"
    result = decode(
        {
            "id": "7",
            "inputs": [
                described(name="A", parameters={"binary_data_size": 4}),
                described(name="B", data=[[2]]),
                described(name="C", datatype="BYTES", parameters={"binary_data_size": 6, "extra": [1]}),
            ],
        },
        binary,
    )
    assert result.request_id == "7"
    assert [Input(*i[:3], bytes(i.data), i.start) for i in result.inputs if isinstance(i, Input)] == [
        Input("A", "FP32", (1,), b"abcd", 0),
        Input("B", "FP32", (1,), b"\0\0\0\x40", -1),
        Input("C", "BYTES", (1,), b"\2\0\0\0hi", 4),
    ]


def test_inputs_in_the_clients_memory() -> None:
    place = {"shared_memory_region": "r", "shared_memory_byte_size": 8, "shared_memory_offset": 16}
    entries = [
        described(name="A", shape=[2], parameters=place),
        described(name="B", parameters={"shared_memory_region": "r"}),
        described(name="C", parameters={"binary_data_size": 4}),
    ]
    result = decode({"inputs": entries}, b"abcd")
    assert result.inputs[:2] == [
        TensorRef("A", "FP32", (2,), 8, None, "@r", 16),
        TensorRef("B", "FP32", (1,), 2**64 - 1, None, "@r", 0),  # more than any region has
    ]
    assert isinstance(result.inputs[2], Input)


def test_members_that_mean_nothing_are_ignored() -> None:
    result = decode(request(model_name="x", inputs=[{**INPUT, "parameters": 3, "more": None}]))
    assert len(result.inputs) == 1


@pytest.mark.parametrize(
    ("document", "code", "text"),
    [
        ([], 1, "Unable to parse 'inputs': attempt to access non-existing object member 'inputs'"),
        ({"inputs": None}, 1, "Unable to parse 'inputs': attempt to access JSON non-array as array"),
        (request(id=3), 1, "Unable to parse 'id': attempt to access JSON non-string as string"),
        (request(parameters=None), 1, "failed to get request params.: attempt to get members for non-object"),
        (
            {"id": 3, "parameters": 3, "inputs": 3},
            1,
            "Unable to parse 'id': attempt to access JSON non-string as string",
        ),
        ({"parameters": 3, "inputs": 3}, 1, "failed to get request params.: attempt to get members for non-object"),
        ({"inputs": [{"data": [1]}]}, 1, "Unable to parse 'name': attempt to access non-existing object member 'name'"),
        (
            {"inputs": [{"name": "IN", "data": [1]}]},
            1,
            "Unable to parse 'datatype': attempt to access non-existing object member 'datatype'",
        ),
        ({"inputs": [{**INPUT, "shape": [-1]}]}, 1, f"Unable to parse 'shape': {NON_UNSIGNED}"),
        ({"inputs": [{**INPUT, "shape": [1.5]}]}, 1, f"Unable to parse 'shape': {NON_UNSIGNED}"),
        ({"inputs": [{**INPUT, "shape": [2**64]}]}, 1, f"Unable to parse 'shape': {NON_UNSIGNED}"),
        (
            {"inputs": [described(parameters={"binary_data_size": -4})]},
            1,
            f"Unable to parse 'binary_data_size': {NON_UNSIGNED}",
        ),
        (
            {"inputs": [described(parameters={"shared_memory_region": 1, "shared_memory_byte_size": 4})]},
            1,
            "Unable to parse 'shared_memory_region': attempt to access JSON non-string as string",
        ),
        (
            {"inputs": [described(parameters={"shared_memory_region": "r", "shared_memory_offset": -1})]},
            1,
            f"Unable to parse 'shared_memory_offset': {NON_UNSIGNED}",
        ),
        (
            {"inputs": [described(parameters={"shared_memory_region": "r", "shared_memory_byte_size": "4"})]},
            1,
            f"Unable to parse 'shared_memory_byte_size': {NON_UNSIGNED}",
        ),
        (request(outputs=None), 1, "Unable to parse 'outputs': attempt to access JSON non-array as array"),
        (request(outputs=[3]), 1, "Unable to parse 'name': attempt to access non-existing object member 'name'"),
        (request(outputs=[{"name": "A"}, {"name": "A"}]), 3, "output 'A' already exists in request"),
    ],
)
def test_errors(document: Any, code: int, text: str) -> None:
    assert refusal(document) == (code, text)


@pytest.mark.parametrize(
    ("entry", "given"),
    [
        (3, "no field is set"),
        ({}, "no field is set"),
        ({**INPUT, "parameters": {"binary_data_size": 4}}, "set 'data' 'binary_data_size'"),
        (
            {**INPUT, "parameters": {"shared_memory_region": "x", "binary_data_size": 4}},
            "set 'data' 'binary_data_size' 'shared_memory_region'",
        ),
    ],
)
def test_an_input_has_one_source_of_data(entry: Any, given: str) -> None:
    code, text = refusal({"inputs": [entry]})
    assert code == ErrorCode.INVALID_ARG
    assert text == (
        "Input must set only one of the following fields: 'data', 'binary_data_size' in 'parameters', "
        f"'shared_memory_region' in 'parameters'. But {given}"
    )


def test_the_binary_section_is_used_up_exactly() -> None:
    document = {"inputs": [described(parameters={"binary_data_size": 4})]}
    assert refusal(document, b"123") == (
        3,
        "unexpected size for input 'IN', expecting 1 additional bytes for model 'm'",
    )
    assert refusal(document, b"12345") == (3, "unexpected additional input data for model 'm'")


def test_strings_that_the_fabric_cannot_carry_are_refused() -> None:
    for document in (
        request(id="\udcff"),
        request(parameters={"\udcff": 1}),
        request(parameters={"a": "\udcff"}),
        request(parameters={"sequence_id": "\udcff"}),
        request(outputs=[{"name": "\udcff"}]),
        {"inputs": [{**INPUT, "name": "\udcff"}]},
        {"inputs": [described(datatype="\udcff", parameters={"binary_data_size": 0})]},
    ):
        assert refusal(document)[1].endswith("the string is not valid UTF-8")


# ----------------------------------------------------------------------------------------------- parameters


def test_parameters_by_meaning() -> None:
    given = {
        "sequence_id": 5,
        "sequence_start": True,
        "sequence_end": True,
        "priority": 1,
        "timeout": 7,
        "s": "x",
        "i": -(2**63),
        "big": 2**63,
        "f": 0.5,
        "b": False,
        "headers": "h",
    }
    assert decode(request(parameters=given)).parameters == RequestParameters(
        {"s": "x", "i": -(2**63), "big": float(2**63), "f": 0.5, "b": False, "headers": "h"},
        5,
        SEQUENCE_START | SEQUENCE_END,
        1,
        7,
    )


@pytest.mark.parametrize(
    ("parameters", "code", "text"),
    [
        ({"sequence_id": -1}, 1, "Unable to parse 'sequence_id': attempt to access JSON non-string as string"),
        ({"sequence_id": "x" * 129}, 5, "string correlation ID cannot be longer than 128 characters"),
        ({"sequence_start": 1}, 1, "Unable to parse 'sequence_start': attempt to access JSON non-boolean as boolean"),
        ({"priority": 2**64}, 1, f"Unable to parse 'priority': {NON_UNSIGNED}"),
        ({"timeout": 1.0}, 1, f"Unable to parse 'timeout': {NON_UNSIGNED}"),
        ({"a": None}, 3, "parameter 'a' has invalid type. It should be either 'int', 'bool', or 'string'."),
        ({"headers": {}}, 3, "parameter 'headers' has invalid type. It should be either 'int', 'bool', or 'string'."),
        (
            {"triton_enable_empty_final_response": True},
            3,
            "parameter keys starting with 'triton_' are reserved for Triton usage and should not be specified.",
        ),
        (
            {"binary_data_output": 1},
            1,
            "Unable to parse 'binary_data_output': attempt to access JSON non-boolean as boolean",
        ),
        ({"a": 10**400}, 1, "Unable to parse 'parameters': Number too big to be stored in double."),
    ],
)
def test_parameter_errors(parameters: Any, code: int, text: str) -> None:
    assert refusal(request(parameters=parameters)) == (code, text)


# ----------------------------------------------------------------------------------------------- selection


@pytest.mark.parametrize(
    ("members", "selection"),
    [
        ({}, Selection({}, False)),
        ({"outputs": []}, Selection({}, False)),
        ({"parameters": {"binary_data_output": True}}, Selection({}, True)),
        ({"outputs": [{"name": "A", "parameters": {"binary_data": True}}]}, Selection({"A": Output(True)}, False)),
        ({"outputs": [{"name": "A", "parameters": 3}]}, Selection({"A": Output()}, False)),
        (
            {"outputs": [{"name": "A"}], "parameters": {"binary_data_output": True}},
            Selection({"A": Output()}, True),
        ),
        (
            {"outputs": [{"name": "A", "parameters": {"classification": 3, "binary_data": True}}]},
            Selection({"A": Output(True, 3)}, False),
        ),
        (
            {
                "outputs": [
                    {"name": "A", "parameters": {"shared_memory_region": "r", "shared_memory_byte_size": 8}},
                    {"name": "B", "parameters": {"classification": 0}},
                ]
            },
            Selection({"A": Output(target=Target("A", "@r", 0, 8)), "B": Output()}, False),
        ),
    ],
)
def test_which_outputs_are_wanted_in_binary(members: Any, selection: Selection) -> None:
    assert decode(request(**members)).selection == selection


@pytest.mark.parametrize(
    ("parameters", "code", "text"),
    [
        ({"classification": -1}, 1, f"Unable to set 'classification': {NON_UNSIGNED}"),
        ({"binary_data": None}, 1, "Unable to parse 'binary_data': attempt to access JSON non-boolean as boolean"),
        (
            {"shared_memory_region": 1},
            1,
            "Unable to parse 'shared_memory_region': attempt to access JSON non-string as string",
        ),
        (
            {"shared_memory_region": "r", "binary_data": True},
            3,
            "Output can't set both 'shared_memory_region' and 'binary_data'",
        ),
        (
            {"shared_memory_region": "r", "classification": 1},
            3,
            "Output can't set both 'shared_memory_region' and 'classification'",
        ),
    ],
)
def test_output_errors(parameters: Any, code: int, text: str) -> None:
    assert refusal(request(outputs=[{"name": "A", "parameters": parameters}])) == (code, text)


# ----------------------------------------------------------------------------------------------- responses


def response(*outputs: TensorRef, **parameters: Any) -> Response:
    return Response(1, ErrorCode.OK, "", "m", 3, outputs, parameters)


def encode(
    answer: Response, request_id: str = "", selection: Selection = ALL_AS_JSON, classes: Classes | None = None
) -> tuple[str, bytes]:
    outputs = [ref.data or b"" for ref in answer.outputs]
    text, blobs = encode_response(answer, outputs, request_id, selection, classes)
    return text.decode(), b"".join(blobs)


A = inline("A", "FP32", (1, 2), b"\0\0\x80\x3f\0\0\0\x40")
B = inline("B", "INT8", (2,), b"\1\xff")


def test_members_in_their_order() -> None:
    assert encode(response(A, B, p="x", n=float("nan")), "é") == (
        '{"id":"é","model_name":"m","model_version":"3","parameters":{"p":"x","n":NaN},"outputs":['
        '{"name":"A","datatype":"FP32","shape":[1,2],"data":[1.0,2.0]},'
        '{"name":"B","datatype":"INT8","shape":[2],"data":[1,-1]}]}',
        b"",
    )


def test_binary_outputs_are_in_the_order_of_the_outputs() -> None:
    text, binary = encode(response(A, B), selection=Selection({"B": Output(True), "A": Output(True)}, False))
    assert [output["parameters"] for output in json.loads(text)["outputs"]] == [
        {"binary_data_size": 8},
        {"binary_data_size": 2},
    ]
    assert binary == b"\0\0\x80\x3f\0\0\0\x40\1\xff"


@pytest.mark.parametrize(
    ("selection", "binary"),
    [
        (Selection({}, False), b""),
        (Selection({}, True), b"\0\0\x80\x3f\0\0\0\x40\1\xff"),
        (Selection({"A": Output(), "B": Output(True)}, True), b"\1\xff"),
        (Selection({"A": Output()}, True), b""),
    ],
)
def test_the_default_counts_only_when_nothing_is_listed(selection: Selection, binary: bytes) -> None:
    assert encode(response(A, B), selection=selection)[1] == binary


def test_an_output_in_the_clients_memory_is_described_only() -> None:
    ref = TensorRef("A", "FP32", (1, 2), 8, None, "@3", 16)
    selection = Selection({"A": Output(target=Target("A", "@r", 0, 8)), "B": Output(True)}, False)
    text, binary = encode(response(ref, B), selection=selection)
    assert json.loads(text)["outputs"] == [
        {"name": "A", "datatype": "FP32", "shape": [1, 2]},
        {"name": "B", "datatype": "INT8", "shape": [2], "parameters": {"binary_data_size": 2}},
    ]
    assert binary == b"\1\xff"


def test_classes_as_json_and_in_binary() -> None:
    classes = Classes(True, {"A": ("cat", "dog")})
    selection = Selection({"A": Output(classes=1), "B": Output()}, False)
    assert selection.has_classes
    text, _ = encode(response(A, B), selection=selection, classes=classes)
    assert json.loads(text)["outputs"] == [
        {"name": "A", "datatype": "BYTES", "shape": [1, 1], "data": ["2.000000:1:dog"]},
        {"name": "B", "datatype": "INT8", "shape": [2], "data": [1, -1]},
    ]
    text, binary = encode(response(A), selection=Selection({"A": Output(True, 1)}, False), classes=classes)
    assert json.loads(text)["outputs"][0]["parameters"] == {"binary_data_size": 18}
    assert binary == b"\x0e\0\0\x002.000000:1:dog"


def test_a_malformed_output_is_the_backends_error() -> None:
    with pytest.raises(RequestError, match="output 'A' is malformed") as caught:
        encode(response(inline("A", "FP32", (1,), b"123")))
    assert caught.value.code == ErrorCode.INTERNAL


def test_response_parameters_that_json_cannot_carry() -> None:
    with pytest.raises(RequestError) as caught:
        encode(response(A, p=b"x"))
    assert caught.value.code == ErrorCode.UNSUPPORTED
