"""The parser of protobuf text: what it accepts is what protobuf accepts, and its errors say where and what."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import message_factory, text_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Value
from hypothesis import given
from hypothesis import strategies as st

from configs import pbtxt
from configs.errors import ConfigError
from configs.proto.schema import message
from configs.tree import Node, default, is_map
from tests.unit.configs.generated_configs import messages

MODEL = message("inference.ModelConfig")
SERVER = message("tidepool.ServerConfig")
ROOT = Path(__file__).parents[3]
FILES = sorted(
    [*ROOT.glob("configs/**/*.pbtxt"), *ROOT.glob("examples/**/*.pbtxt"), *Path(__file__).parent.glob("**/*.pbtxt")]
)


def parse(text: str, schema: Descriptor = MODEL) -> Node:
    return pbtxt.parse(text, schema, "config.pbtxt")


def error_of(text: str, schema: Descriptor = MODEL) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text, schema)
    assert len(caught.value.messages) == 1
    assert "\n" not in str(caught.value)
    return str(caught.value)


def plain(value: Any) -> Any:
    """A node, or a value in one, as plain data: only what is set."""
    if isinstance(value, Node):
        return {name: plain(field.value) for name, field in value.fields.items()}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    return "nan" if isinstance(value, float) and math.isnan(value) else value


def plain_message(sent: Message) -> Any:
    """The same of one of protobuf's own messages."""

    def one(field: FieldDescriptor, value: Any) -> Any:
        if field.message_type is not None:
            return plain_message(value)
        if field.enum_type is not None:
            return field.enum_type.values_by_number[value].name
        return "nan" if isinstance(value, float) and math.isnan(value) else value

    result: dict[str, Any] = {}
    for field, value in sent.ListFields():
        if is_map(field):
            item = field.message_type.fields_by_name["value"]
            result[field.name] = {key: one(item, value[key]) for key in value}
        elif field.is_repeated:
            result[field.name] = [one(field, item) for item in value]
        else:
            result[field.name] = one(field, value)
    return result


def without_defaults(tree: Node) -> Any:
    """A node as plain data without what protobuf does not keep: scalars that were set to their default."""
    result = {}
    for name, field in tree.fields.items():
        declared = tree.descriptor.fields_by_name[name]
        if is_map(declared):
            value = {k: without_defaults(v) if isinstance(v, Node) else plain(v) for k, v in field.value.items()}
        elif declared.is_repeated:
            value = [without_defaults(v) if isinstance(v, Node) else plain(v) for v in field.value]
        elif isinstance(field.value, Node):
            value = without_defaults(field.value)
        else:
            value = plain(field.value)
            if not declared.containing_oneof and repr(value) == repr(default(declared)):
                continue
        if value or not declared.is_repeated:
            result[name] = value
    return result


@given(messages(MODEL), st.booleans(), st.booleans())
def test_what_protobuf_prints_is_read_back(sent: Message, one_line: bool, utf8: bool) -> None:
    text = text_format.MessageToString(sent, as_one_line=one_line, as_utf8=utf8)
    assert without_defaults(parse(text)) == plain_message(sent)


@given(messages(SERVER))
def test_what_protobuf_prints_of_a_server_is_read_back(sent: Message) -> None:
    text = text_format.MessageToString(sent, use_short_repeated_primitives=True, pointy_brackets=True)
    assert without_defaults(parse(text, SERVER)) == plain_message(sent)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_protobufs_own_parser_reads_the_same_from_our_files(file: Path) -> None:
    schema = MODEL if "input" in file.read_text() or "recorded" in str(file) else SERVER
    theirs = text_format.Parse(file.read_text(), message_factory.GetMessageClass(schema)())
    assert without_defaults(pbtxt.read(file, schema)) == plain_message(theirs)


PIECES = ["{", "}", "[", "]", "<", ">", ":", ",", ";", "-", "#", "\n", " ", '"', "'", "\\", "0", "1.5", "0x", "inf"]
NAMES = ["name", "input", "dims", "data_type", "TYPE_FP32", "parameters", "key", "value", "string_value", "true"]


@given(st.one_of(st.text(), st.lists(st.sampled_from(PIECES + NAMES)).map(" ".join)))
def test_any_text_is_read_or_refused_with_one_line_for_each_mistake_in_their_order(text: str) -> None:
    try:
        lines = [str(parse(text).position)]
    except ConfigError as error:
        lines = str(error).splitlines()
    places = [re.match(r"config\.pbtxt:(\d+):(\d+)", line) for line in lines]
    assert all(places)
    numbers = [(int(place[1]), int(place[2])) for place in places if place]
    assert numbers == sorted(numbers)


def test_what_is_wrong_behind_a_mistake_is_found_as_well() -> None:
    text = """
        max_bach_size: 8
        input [ { name: "A" dims: [ 1, "x", 2 ] typo { a: [ { b: 1 } ] } data_type: TYPE_FP31 } ]
        name: 'one' 'two' name: "three" "four"
        zzz: -1, dynamic_batching { } sequence_batching < oldest { } >
        max_batch_size: 3000000000
        output { name: "B"
    """
    with pytest.raises(ConfigError) as caught:
        parse(text)
    expected = [
        "2:9: unknown field 'max_bach_size'",
        "3:40: expected an integer for 'dims', got \"x\"",
        "3:49: unknown field 'typo' in ModelInput",
        "3:85: unknown value 'TYPE_FP31' for 'data_type'",
        "4:27: 'name' is set twice, first at line 4",
        "5:9: unknown field 'zzz' in ModelConfig",
        "5:39: 'sequence_batching' cannot be set together with 'dynamic_batching'",
        "6:25: 3000000000 is out of range for 'max_batch_size'",
        "8:5: the file ends, but the bracket opened at line 7, column 16",
    ]
    for line, start in zip(caught.value.messages, expected, strict=True):
        assert line.startswith(f"config.pbtxt:{start}")


def test_a_file_that_is_no_configuration_at_all_does_not_print_a_line_for_each_word() -> None:
    with pytest.raises(ConfigError) as caught:
        parse("a: 1\n" * 10_000)
    assert len(caught.value.messages) == pbtxt.MAX_MISTAKES


@given(st.data())
def test_a_file_with_an_edit_is_read_exactly_if_protobuf_reads_it(data: st.DataObject) -> None:
    file = data.draw(st.sampled_from([f for f in FILES if "input" in f.read_text()]))
    text = file.read_text()
    at = data.draw(st.integers(0, len(text)))
    cut = data.draw(st.integers(0, 3))
    # Protobuf's Python parser lets wrong escapes pass and refuses a blank after a minus; the language does neither.
    pieces = [piece for piece in PIECES if piece not in ("\\", "-")]
    text = text[:at] + data.draw(st.sampled_from(["", *pieces, *NAMES])) + text[at + cut :]
    try:
        theirs = text_format.Parse(text, message_factory.GetMessageClass(MODEL)())
    except text_format.ParseError:
        with pytest.raises(ConfigError):
            parse(text)
    else:
        assert without_defaults(parse(text)) == plain_message(theirs)


# --- the language


def test_presence_is_remembered() -> None:
    tree = parse("max_batch_size: 0")
    assert "max_batch_size" in tree
    assert "name" not in tree
    assert tree.get("name") == ""


def test_every_field_knows_where_it_stands() -> None:
    tree = parse('name: "m"\ninput [\n  { name: "a" },\n  { name: "b" dims: [ 1 ] }\n]')
    assert [str(node.at("name")) for node in tree.get("input")] == ["config.pbtxt:3:5", "config.pbtxt:4:5"]
    assert str(tree.get("input")[1].at("dims")) == "config.pbtxt:4:15"
    assert str(tree.get("input")[0].at("dims")) == "config.pbtxt:3:3"  # not set: where the message opens


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: 'a' \"b\"  # adjacent\n'c'", {"name": "abc"}),
        (r'name: "\n\t\"\'\\\x41\101\u00e9\U0001F600\303\251"', {"name": "\n\t\"'\\AAé😀é"}),
        ("max_batch_size: 0x10", {"max_batch_size": 16}),
        ("max_batch_size: 010", {"max_batch_size": 8}),
        ("max_batch_size: - 3", {"max_batch_size": -3}),
        ("max_batch_size: 1; name: 'x',", {"max_batch_size": 1, "name": "x"}),
        ("input: { name: 'a' }", {"input": [{"name": "a"}]}),
        ("input < name: 'a' >", {"input": [{"name": "a"}]}),
        ("input [ { dims: 1 dims: [ 2, -1 ] }, < > ]", {"input": [{"dims": [1, 2, -1]}, {}]}),
        ("input: [ ]", {"input": []}),
        ("input { data_type: 11 optional: t }", {"input": [{"data_type": "TYPE_FP32", "optional": True}]}),
        ("input { optional: 1 is_shape_tensor: False }", {"input": [{"optional": True, "is_shape_tensor": False}]}),
        ('parameters { key: "a" value { string_value: "1" } }', {"parameters": {"a": {"string_value": "1"}}}),
        ('metric_tags: [ { key: "a" value: "1" }, { key: "b" } ]', {"metric_tags": {"a": "1", "b": ""}}),
        ('metric_tags { key: "a" value: "1" } metric_tags { key: "a" value: "2" }', {"metric_tags": {"a": "2"}}),
        ("dynamic_batching { }", {"dynamic_batching": {}}),
        ("\ufeffmax_batch_size: 1", {"max_batch_size": 1}),
    ],
)
def test_forms_of_the_language(text: str, expected: dict[str, Any]) -> None:
    assert plain(parse(text)) == expected


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("2f", 2.0),
        ("1e3", 1000.0),
        ("-inf", -math.inf),
        ("9" * 999, math.inf),
        ("0x10", 16.0),
    ],
)
def test_floats(text: str, value: float) -> None:
    assert parse(f"metrics_interval_ms: {text}", SERVER).get("metrics_interval_ms") == value


# --- errors


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max_bach_size: 1", "1:1: unknown field 'max_bach_size' in ModelConfig; did you mean 'max_batch_size'?"),
        ("\n  zzz: 1", "2:3: unknown field 'zzz' in ModelConfig"),
        (
            "version_policy { newest { } }",
            "1:18: unknown field 'newest' in ModelVersionPolicy; known are: all, latest, ",
        ),
        ("instance_group { kind: KIND_GUP }", "1:24: unknown value 'KIND_GUP' for 'kind'; did you mean 'KIND_GPU'?"),
        ("instance_group { kind: 9 }", "1:24: unknown value '9' for 'kind'; known are: KIND_AUTO, KIND_CPU"),
        ("instance_group { kind: 'KIND_CPU' }", "1:24: expected one of KIND_AUTO, KIND_GPU, KIND_CPU, KIND_MODEL for "),
        ("name: 5", "1:7: expected a string in quotes for 'name', got '5'"),
        ("name: resnet", "1:7: expected a string in quotes for 'name', got 'resnet'"),
        ('max_batch_size: "8"', "1:17: expected an integer for 'max_batch_size', got \"8\""),
        ("max_batch_size: 1.5", "1:17: expected an integer for 'max_batch_size', got '1.5'"),
        ("max_batch_size: 08", "1:17: expected an integer for 'max_batch_size', got '08'"),
        ("max_batch_size: 0x" + "f" * 9999, "1:17: expected an integer for 'max_batch_size', got '0xffff"),
        ("max_batch_size: " + "9" * 99, "1:17: 999999"),
        ("max_batch_size: " + "9" * 9999, "1:17: expected an integer for 'max_batch_size', got '9999"),
        ("max_batch_size: 12abc", "1:17: '12abc' is not a number"),
        (
            "max_batch_size: 3000000000",
            "1:17: 3000000000 is out of range for 'max_batch_size': -2147483648 to 2147483647",
        ),
        ("input { optional: yes }", "1:19: expected true or false for 'optional', got 'yes'"),
        ("input { optional: 2 }", "1:19: expected true or false for 'optional', got '2'"),
        ("max_batch_size: [ 1 ]", "1:17: 'max_batch_size' takes one value, not a list"),
        ("max_batch_size 1", "1:16: expected ':' after 'max_batch_size', got '1'"),
        ("max_batch_size:", "1:16: expected an integer for 'max_batch_size', got the end of the file"),
        ("input: 5", "1:8: expected '{' to open 'input', got '5'"),
        ("max_batch_size: 1\nmax_batch_size: 1", "2:1: 'max_batch_size' is set twice, first at line 1"),
        (
            "dynamic_batching { }\nsequence_batching { }",
            "2:1: 'sequence_batching' cannot be set together with 'dynamic_batching' of line 1: choose one of them",
        ),
        (
            'name: "m"\ninput {\n  dims: 1\n',
            "4:1: the file ends, but the bracket opened at line 2, column 7 is not closed: expected '}'",
        ),
        (
            "input [ { dims: 1 }",
            "1:20: expected ',' or ']' in the list opened at line 1, column 7, got the end of the file",
        ),
        ("input { dims: [ 1 }", "1:19: expected ',' or ']' in the list opened at line 1, column 15, got '}'"),
        ("input { dims: 1 ]", "1:17: unexpected ']': expected '}' for the bracket opened at line 1, column 7"),
        ("input { dims: 1 } }", "1:19: unexpected '}': no bracket is open here"),
        ("input { dims: [ 1, ] }", "1:20: expected an integer for 'dims', got ']'"),
        ('name: "abc', "1:7: this string is not closed on its line"),
        (r'name: "\q"', r"1:7: unknown escape '\q'"),
        (r'name: "\377"', "1:7: the escapes in 'name' do not make up UTF-8 text"),
        ('max_batch_size: "a\u2028b\rc"', r'''1:17: expected an integer for 'max_batch_size', got "a\u2028b\rc"'''),
        ("name: @", "1:7: unexpected character '@'"),
        ('"name": 1', '1:1: expected the name of a field of ModelConfig, got "name"'),
    ],
)
def test_errors_say_where_and_what_was_expected(text: str, expected: str) -> None:
    assert error_of(text).startswith(f"config.pbtxt:{expected}")


def test_nesting_is_bounded() -> None:
    """No schema of ours is recursive, so a recursive one of protobuf's own shows the bound."""
    deep = "list_value { values { " * 40
    assert "messages are nested more than 64 deep" in error_of(deep, Value.DESCRIPTOR)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "config.pbtxt"
    file.write_bytes(b"#" * (pbtxt.MAX_BYTES + 1))
    with pytest.raises(ConfigError, match="too large"):
        pbtxt.read(file, MODEL)


def test_what_cannot_be_read_is_said_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file or directory"):
        pbtxt.read(tmp_path / "none.pbtxt", MODEL)
    file = tmp_path / "config.pbtxt"
    file.write_bytes(b'name: "m"\n# caf\xe9')
    with pytest.raises(ConfigError, match=r"config\.pbtxt:2:6: is not UTF-8 text"):
        pbtxt.read(file, MODEL)
