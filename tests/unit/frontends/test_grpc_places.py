"""Where in a client's memory tensors lie, and the texts for parameters that do not say it properly."""

from typing import Any

import pytest

from broker.messages import ErrorCode
from frontends.errors import RequestError
from frontends.grpc.messages import message
from frontends.grpc.places import Place, read_place

REGION = {"shared_memory_region": {"string_param": "r"}}
SIZE = {"shared_memory_byte_size": {"int64_param": 8}}


def tensor(parameters: dict[str, dict[str, Any]]) -> Any:
    values = {name: message("inference.InferParameter")(**value) for name, value in parameters.items()}
    return message("inference.ModelInferRequest.InferInputTensor")(name="X", parameters=values)


@pytest.mark.parametrize(
    ("parameters", "place"),
    [
        ({}, None),
        ({"mine": {"int64_param": 1}}, None),
        (REGION | SIZE, Place("r", 0, 8)),
        (REGION | SIZE | {"shared_memory_offset": {"int64_param": 16}}, Place("r", 16, 8)),
        (REGION | SIZE | {"shared_memory_offset": {"int64_param": -8}}, Place("r", 2**64 - 8, 8)),
        (REGION | {"shared_memory_byte_size": {"int64_param": -1}}, Place("r", 0, 2**64 - 1)),
    ],
)
def test_places(parameters: dict[str, dict[str, Any]], place: Place | None) -> None:
    assert read_place(tensor(parameters)) == place


@pytest.mark.parametrize(
    ("parameters", "error"),
    [
        (
            {"shared_memory_region": {"int64_param": 1}} | SIZE,
            "invalid value type for 'shared_memory_region' parameter for tensor 'X', expected string_param.",
        ),
        (
            REGION | SIZE | {"shared_memory_offset": {"string_param": "1"}},
            "invalid value type for 'shared_memory_offset' parameter for tensor 'X', expected int64_param.",
        ),
        (
            REGION | {"shared_memory_byte_size": {"uint64_param": 8}},
            "invalid value type for 'shared_memory_byte_size' parameter for tensor 'X', expected int64_param.",
        ),
        (
            REGION,
            "'shared_memory_byte_size' must be specified along with 'shared_memory_region' parameter for tensor 'X'",
        ),
        (
            SIZE,
            "'shared_memory_byte_size' can not be specified without 'shared_memory_region' parameter for tensor 'X'",
        ),
        (
            {"shared_memory_offset": {"int64_param": 1}},
            "'shared_memory_offset' can not be specified without 'shared_memory_region' parameter for tensor 'X'",
        ),
    ],
)
def test_a_place_that_is_not_said_properly_is_refused(parameters: dict[str, dict[str, Any]], error: str) -> None:
    with pytest.raises(RequestError) as caught:
        read_place(tensor(parameters))
    assert (caught.value.code, caught.value.message) == (ErrorCode.INVALID_ARG, error)
