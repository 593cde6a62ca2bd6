"""The compiled services: wire compatible with Triton's, and able to share a process with Triton's client."""

import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, FileDescriptor
from tritonclient.grpc import model_config_pb2, service_pb2

from frontends.grpc.messages import pool

OURS_AND_THEIRS = [
    (pool().FindFileByName(ours), theirs.DESCRIPTOR)
    for ours, theirs in (
        ("frontends/grpc/grpc_service.proto", service_pb2),
        ("configs/proto/model_config.proto", model_config_pb2),
    )
]


def described_field(field: FieldDescriptor) -> tuple[object, ...]:
    named = field.message_type or field.enum_type
    oneof = field.containing_oneof
    return field.number, field.type, field.is_repeated, named and named.full_name, oneof and oneof.name


def described_enum(enum: EnumDescriptor) -> dict[str, object]:
    return {enum.full_name: {value.name: value.number for value in enum.values}}


def described_message(message: Descriptor) -> dict[str, object]:
    described: dict[str, object] = {message.full_name: {f.name: described_field(f) for f in message.fields}}
    for enum in message.enum_types:
        described |= described_enum(enum)
    for nested in message.nested_types:
        described |= described_message(nested)
    return described


def described_messages(file: FileDescriptor) -> dict[str, object]:
    described: dict[str, object] = {}
    for enum in file.enum_types_by_name.values():
        described |= described_enum(enum)
    for message in file.message_types_by_name.values():
        described |= described_message(message)
    return described


@pytest.mark.parametrize(("ours", "theirs"), OURS_AND_THEIRS, ids=["service", "model configuration"])
def test_messages_have_the_names_numbers_and_types_of_triton(ours: FileDescriptor, theirs: FileDescriptor) -> None:
    assert described_messages(ours) == described_messages(theirs)


def test_the_service_has_the_methods_of_triton() -> None:
    def methods(file: FileDescriptor) -> dict[str, tuple[str, str, bool, bool]]:
        return {
            method.name: (
                method.input_type.full_name,
                method.output_type.full_name,
                method.client_streaming,
                method.server_streaming,
            )
            for method in file.services_by_name["GRPCInferenceService"].methods
        }

    ours, theirs = OURS_AND_THEIRS[0]
    assert methods(ours) == methods(theirs)


IMPORT_TRITONCLIENT = "import tritonclient.grpc"
IMPORT_OURS = "import frontends.grpc.server"


@pytest.mark.parametrize(
    "lines",
    [(IMPORT_TRITONCLIENT, IMPORT_OURS), (IMPORT_OURS, IMPORT_TRITONCLIENT)],
    ids=["after Triton's client", "before Triton's client"],
)
def test_imports(lines: tuple[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=Path(__file__).parents[3],
    )
    assert done.returncode == 0, done.stderr
