"""Our schema is Triton's: the names, numbers and types of every field, as tritonclient carries them."""

import subprocess
import sys

import pytest
import tritonclient.grpc.model_config_pb2 as triton
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from configs.proto.schema import message


def enum_values(enum: EnumDescriptor | None) -> dict[str, int] | None:
    return enum and {value.name: value.number for value in enum.values}


def field_facts(field: FieldDescriptor) -> tuple[object, ...]:
    return (
        field.number,
        field.type,
        field.is_repeated,
        field.message_type and field.message_type.full_name,
        enum_values(field.enum_type),
        field.containing_oneof and field.containing_oneof.name,
    )


def all_messages(messages: list[Descriptor]) -> list[Descriptor]:
    return [one for top in messages for one in (top, *all_messages(list(top.nested_types)))]


@pytest.mark.parametrize(
    "theirs", all_messages(list(triton.DESCRIPTOR.message_types_by_name.values())), ids=lambda m: m.full_name
)
def test_every_message_of_triton_has_the_same_fields_here_in_the_same_order(theirs: Descriptor) -> None:
    ours = message(theirs.full_name)
    assert [(f.name, *field_facts(f)) for f in ours.fields] == [(f.name, *field_facts(f)) for f in theirs.fields]


def test_datatypes_have_tritons_numbers() -> None:
    ours = message("inference.ModelInput").fields_by_name["data_type"].enum_type
    assert enum_values(ours) == enum_values(triton.DESCRIPTOR.enum_types_by_name["DataType"])


@pytest.mark.parametrize("order", ["configs.model, tritonclient.grpc", "tritonclient.grpc, configs.model"])
def test_tritons_client_can_be_imported_before_and_after_our_schema(order: str) -> None:
    subprocess.run([sys.executable, "-c", f"import {order}"], check=True, timeout=60)
