"""What reflection says of the services."""

from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool

from frontends.grpc.messages import message
from frontends.grpc.reflection import reflect

Request = message("grpc.reflection.v1.ServerReflectionRequest")


def ask(**question: Any) -> Any:
    return reflect(Request(host="here", **question), ("a.Service", "b.Service"))


def test_it_lists_services() -> None:
    response = ask(list_services="*")
    assert [service.name for service in response.list_services_response.service] == ["a.Service", "b.Service"]
    assert response.valid_host == "here"
    assert response.original_request.list_services == "*"


@pytest.mark.parametrize(
    "symbol",
    [
        "inference.GRPCInferenceService",
        "inference.GRPCInferenceService.ModelInfer",
        "inference.ModelInferRequest.InferInputTensor",
        "inference.DataType",
        "grpc.health.v1.Health.Check",
        "grpc.reflection.v1.ServerReflection",
    ],
)
def test_the_files_of_a_symbol_are_all_that_describes_it(symbol: str) -> None:
    answer = ask(file_containing_symbol=symbol).file_descriptor_response
    files = [FileDescriptorProto.FromString(file) for file in answer.file_descriptor_proto]
    assert symbol.startswith(f"{files[0].package}.")
    pool = DescriptorPool()
    for file in reversed(files):  # a pool wants imports first, and all of them
        pool.Add(file)


def test_a_file_by_its_name() -> None:
    name = "configs/proto/model_config.proto"
    (file,) = ask(file_by_filename=name).file_descriptor_response.file_descriptor_proto
    assert FileDescriptorProto.FromString(file).name == name


def test_no_message_has_extensions() -> None:
    response = ask(all_extension_numbers_of_type="inference.ModelConfig").all_extension_numbers_response
    assert (response.base_type_name, list(response.extension_number)) == ("inference.ModelConfig", [])


@pytest.mark.parametrize(
    ("question", "status"),
    [
        ({"file_containing_symbol": "no.such.Thing"}, grpc.StatusCode.NOT_FOUND),
        ({"file_containing_symbol": ""}, grpc.StatusCode.NOT_FOUND),
        ({"file_by_filename": "no.proto"}, grpc.StatusCode.NOT_FOUND),
        ({"all_extension_numbers_of_type": "no.Thing"}, grpc.StatusCode.NOT_FOUND),
        (
            {"file_containing_extension": {"containing_type": "inference.ModelConfig", "extension_number": 1}},
            grpc.StatusCode.NOT_FOUND,
        ),
        ({}, grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_what_is_not_there_is_an_error(question: dict[str, Any], status: grpc.StatusCode) -> None:
    assert ask(**question).error_response.error_code == status.value[0]
