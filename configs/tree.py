"""A configuration as it stands in the text: a tree of values that remembers what was set, and where."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor


class Position(NamedTuple):
    """A place in a file; line and column count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class Field(NamedTuple):
    """The value of a field that was set.

    Numbers, booleans and strings are Python's, an enum value is its name, a message is a `Node`; a repeated field
    is a tuple of these, a map a dict from key to value.
    """

    value: Any
    position: Position


@dataclass(frozen=True, slots=True)
class Node:
    """One message: the fields that stand in the text, by name."""

    descriptor: Descriptor
    fields: Mapping[str, Field]
    position: Position

    def __contains__(self, name: str) -> bool:
        return name in self.fields

    def get(self, name: str) -> Any:
        """The field's value, or its default (None for a message)."""
        if name in self.fields:
            return self.fields[name].value
        return default(self.descriptor.fields_by_name[name])

    def at(self, name: str) -> Position:
        """Where the field stands, or the message if the field was not set."""
        return self.fields[name].position if name in self.fields else self.position


def merge(base: Node, over: Node) -> Node:
    """`base` with every field that stands in `over` replaced whole: repeated, map and message fields too.

    A member of a oneof in `over` also removes the other members of that oneof from `base`.
    """
    replaced = {
        sibling.name
        for name in over.fields
        if (oneof := over.descriptor.fields_by_name[name].containing_oneof)
        for sibling in oneof.fields
    }
    kept = {name: field for name, field in base.fields.items() if name not in replaced}
    return Node(base.descriptor, {**kept, **over.fields}, over.position)


def is_map(field: FieldDescriptor) -> bool:
    """Is it a map (which protobuf describes as a repeated message of key and value)?"""
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def message_type(field: FieldDescriptor) -> Descriptor:
    """The type of a message field."""
    assert field.message_type is not None
    return field.message_type


def enum_type(field: FieldDescriptor) -> EnumDescriptor:
    """The type of an enum field."""
    assert field.enum_type is not None
    return field.enum_type


def default(field: FieldDescriptor) -> Any:
    """The value of a field that was not set."""
    if is_map(field):
        return {}
    if field.is_repeated:
        return ()
    if field.message_type is not None:
        return None
    if field.enum_type is not None:
        return field.enum_type.values[0].name
    return field.default_value


def as_json(node: Node) -> dict[str, Any]:
    """The message in the form in which Triton reports a configuration.

    Members keep the order of the schema; unset scalars, lists and maps are printed with their defaults, unset
    messages are left out; enum values are names, all integers are numbers, map keys are strings.
    """
    return dict(_members(node))


def _members(node: Node) -> Iterator[tuple[str, Any]]:
    for field in node.descriptor.fields:
        present = field.name in node.fields
        if present or not (field.containing_oneof or (field.message_type and not field.is_repeated)):
            yield field.name, _plain(node.get(field.name))


def _plain(value: Any) -> Any:
    if isinstance(value, Node):
        return as_json(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, float) and value.is_integer():
        return int(value)  # as protobuf writes it
    return value
