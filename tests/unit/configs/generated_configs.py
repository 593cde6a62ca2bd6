"""Protobuf messages out of nothing, by their schema, for hypothesis."""

from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st

from configs.tree import is_map

_NUMBERS = {
    FieldDescriptor.CPPTYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: st.integers(0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: st.integers(0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_FLOAT: st.floats(width=32),
    FieldDescriptor.CPPTYPE_DOUBLE: st.floats(),
    FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
    FieldDescriptor.CPPTYPE_STRING: st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
}


@st.composite
def messages(draw: st.DrawFn, schema: Descriptor, depth: int = 0) -> Message:
    made = message_factory.GetMessageClass(schema)()
    chosen = draw(st.sets(st.sampled_from([f.name for f in schema.fields]), max_size=4)) if schema.fields else set()
    for field in (schema.fields_by_name[name] for name in sorted(chosen)):
        fill(draw, made, field, depth)
    return made


def fill(draw: st.DrawFn, made: Message, field: FieldDescriptor, depth: int) -> None:
    def value(of: FieldDescriptor) -> Any:
        if of.message_type is not None:
            return draw(messages(of.message_type, depth + 1))
        if of.enum_type is not None:
            return draw(st.sampled_from([v.number for v in of.enum_type.values]))
        return draw(_NUMBERS[of.cpp_type])

    target = getattr(made, field.name)
    if depth > 3 and field.message_type is not None:
        return
    if is_map(field):
        key, item = field.message_type.fields
        for _ in range(draw(st.integers(0, 2))):
            name = value(key)
            if item.message_type is not None:
                target[name].CopyFrom(value(item))
            else:
                target[name] = value(item)
    elif field.is_repeated:
        target.extend(value(field) for _ in range(draw(st.integers(0, 3))))
    elif field.message_type is not None:
        target.CopyFrom(value(field))
        target.SetInParent()
    else:
        setattr(made, field.name, value(field))
