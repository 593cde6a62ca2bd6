"""Request and response parameters in gRPC's form, with the error texts that clients know."""

from typing import Any

import pytest

from broker.messages import ErrorCode
from frontends.errors import RequestError
from frontends.grpc.messages import message
from frontends.grpc.parameters import enables_empty_final_response, read_parameters, write_parameters
from frontends.parameters import SEQUENCE_END, SEQUENCE_START, RequestParameters


def parameters(**fields: dict[str, Any]) -> Any:
    request = message("inference.ModelInferRequest")()
    for name, value in fields.items():
        request.parameters[name].CopyFrom(message("inference.InferParameter")(**value))
    return request.parameters


def test_none() -> None:
    assert read_parameters(parameters()) == RequestParameters({}, 0, 0, 0, 0)


def test_reserved_parameters_have_their_meaning() -> None:
    read = read_parameters(
        parameters(
            sequence_id={"string_param": "s"},
            sequence_start={"bool_param": True},
            sequence_end={"bool_param": True},
            priority={"uint64_param": 2},
            timeout={"int64_param": 1000},
            triton_enable_empty_final_response={"bool_param": True},
        )
    )
    assert read == RequestParameters({}, "s", SEQUENCE_START | SEQUENCE_END, 2, 1000)


def test_false_flags_are_none() -> None:
    assert read_parameters(parameters(sequence_start={"bool_param": False})).flags == 0


@pytest.mark.parametrize(("given", "meant"), [(5, 5), (-1, 2**64 - 1)])
def test_a_correlation_id_is_unsigned(given: int, meant: int) -> None:
    assert read_parameters(parameters(sequence_id={"int64_param": given})).correlation_id == meant


def test_other_parameters_are_the_models() -> None:
    read = read_parameters(
        parameters(
            text={"string_param": "x"},
            number={"int64_param": -3},
            yes={"bool_param": True},
            half={"double_param": 0.5},
            binary_data_output={"bool_param": True},
        )
    )
    assert read.custom == {"text": "x", "number": -3, "yes": True, "half": 0.5, "binary_data_output": True}


@pytest.mark.parametrize(
    ("given", "is_enabled"), [({}, False), ({"bool_param": False}, False), ({"bool_param": True}, True)]
)
def test_empty_final_responses_are_enabled_by_a_parameter_that_no_model_sees(
    given: dict[str, Any], is_enabled: bool
) -> None:
    those = parameters(triton_enable_empty_final_response=given) if given else parameters()
    assert enables_empty_final_response(those) is is_enabled
    assert read_parameters(those).custom == {}


RESERVED = (
    "parameter keys starting with 'triton_' are reserved for Triton usage. Only the following keys starting with "
    "'triton_' are allowed: triton_enable_empty_final_response"
)
CUSTOM = "invalid value type for 'x' parameter, expected int64_param, bool_param, or string_param."


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        (
            "sequence_id",
            {"bool_param": True},
            "invalid value type for 'sequence_id' parameter, expected int64_param or string_param.",
        ),
        (
            "sequence_start",
            {"int64_param": 1},
            "invalid value type for 'sequence_start' parameter, expected bool_param.",
        ),
        (
            "sequence_end",
            {"string_param": "true"},
            "invalid value type for 'sequence_end' parameter, expected bool_param.",
        ),
        (
            "priority",
            {"string_param": "1"},
            "invalid value type for 'priority' parameter, expected int64_param or uint64_param.",
        ),
        ("priority", {"int64_param": -1}, "invalid value for 'priority', expected value >= 0."),
        ("timeout", {"uint64_param": 1}, "invalid value type for 'timeout' parameter, expected int64_param."),
        (
            "triton_enable_empty_final_response",
            {"int64_param": 1},
            "invalid value type for 'triton_enable_empty_final_response' parameter, expected bool_param.",
        ),
        ("triton_x", {"bool_param": True}, RESERVED),
        ("x", {"uint64_param": 1}, CUSTOM),
        ("x", {}, CUSTOM),
    ],
)
def test_a_wrong_parameter_is_refused(name: str, value: dict[str, Any], error: str) -> None:
    with pytest.raises(RequestError) as caught:
        read_parameters(parameters(**{name: value}))
    assert caught.value.code == ErrorCode.INVALID_ARG
    assert caught.value.message == error


def test_a_long_string_id_is_refused() -> None:
    assert read_parameters(parameters(sequence_id={"string_param": "s" * 128})).correlation_id == "s" * 128
    with pytest.raises(RequestError) as caught:
        read_parameters(parameters(sequence_id={"string_param": "s" * 129}))
    assert caught.value.code == ErrorCode.UNSUPPORTED
    assert caught.value.message == "string correlation ID cannot be longer than 128 characters"


def test_response_parameters_keep_their_types() -> None:
    response = message("inference.ModelInferResponse")()
    write_parameters({"yes": True, "number": 1, "half": 0.5, "text": "x"}, response.parameters)
    written = {name: value.WhichOneof("parameter_choice") for name, value in response.parameters.items()}
    assert written == {"yes": "bool_param", "number": "int64_param", "half": "double_param", "text": "string_param"}
    assert response.parameters["yes"].bool_param is True
    assert response.parameters["number"].int64_param == 1
    assert response.parameters["half"].double_param == 0.5
    assert response.parameters["text"].string_param == "x"
