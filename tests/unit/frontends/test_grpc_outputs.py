"""Requested outputs: names, places in the client's memory, classifications."""

from typing import Any

import pytest

from broker.messages import ErrorCode, Target
from frontends.errors import RequestError
from frontends.grpc.messages import message
from frontends.grpc.outputs import ALL, requested_outputs

PLACE = {
    "shared_memory_region": {"string_param": "r"},
    "shared_memory_offset": {"int64_param": 4},
    "shared_memory_byte_size": {"int64_param": 8},
}


def request_for(**outputs: dict[str, dict[str, Any]]) -> Any:
    request = message("inference.ModelInferRequest")()
    for name, parameters in outputs.items():
        values = {key: message("inference.InferParameter")(**value) for key, value in parameters.items()}
        request.outputs.add(name=name, parameters=values)
    return request


def refused(**parameters: dict[str, Any]) -> RequestError:
    with pytest.raises(RequestError) as caught:
        requested_outputs(request_for(Y=parameters))
    return caught.value


def test_all_outputs() -> None:
    assert requested_outputs(request_for()) == ALL


def test_some_outputs() -> None:
    found = requested_outputs(
        request_for(B={}, A=PLACE, C={"classification": {"int64_param": 3}}, D={"mine": {"string_param": "dropped"}})
    )
    assert found.names == ("B", "A", "C", "D")
    assert found.targets == (Target("A", "@r", 4, 8),)
    assert found.classes == {"C": 3}


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ({"int64_param": 0}, "invalid value for 'classification' parameter, expected >= 0"),
        ({"int64_param": -1}, "invalid value for 'classification' parameter, expected >= 0"),
        ({"string_param": "1"}, "invalid value type for 'classification' parameter, expected int64_param"),
        ({"uint64_param": 1}, "invalid value type for 'classification' parameter, expected int64_param"),
    ],
)
def test_classifications_of_no_number_are_refused(value: dict[str, Any], error: str) -> None:
    refusal = refused(classification=value)
    assert (refusal.code, refusal.message) == (ErrorCode.INVALID_ARG, error)


def test_a_classification_cannot_go_to_the_clients_memory() -> None:
    refusal = refused(**PLACE, classification={"int64_param": 1})
    assert refusal.code == ErrorCode.INVALID_ARG
    assert refusal.message == "output can't set both 'shared_memory_region' and 'classification'"
