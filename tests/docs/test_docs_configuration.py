"""docs/configuration.md against the code: the options' tables, the fields of models, and all configurations shown."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor import Descriptor

from configs import pbtxt
from configs.description import ModelDescription
from configs.errors import ConfigError
from configs.model import describe
from configs.proto.schema import message
from configs.server import ServerConfig
from configs.tree import Node, message_type
from scripts import document_options
from tests.docs.blocks import ROOT, Block, blocks

PAGE = (ROOT / "docs" / "configuration.md").read_text()
MODEL = message("inference.ModelConfig")
SERVER = message("tidepool.ServerConfig")
DEEP = {"input", "output", "instance_group", "dynamic_batching", "model_transaction_policy", "response_cache"}
"""Blocks whose fields are listed one by one."""


def examples(title: str) -> list[str]:
    """The first cells of the table under a heading."""
    section = PAGE.partition(f"\n### {title}\n")[2].partition("\n#")[0]
    return re.findall(r"^\| `(.+?)` \|", section, re.MULTILINE)


APPLIED, REFUSED, IGNORED = examples("Applied"), examples("Refused"), examples("Ignored with a warning")


def parse(text: str, schema: Descriptor = MODEL) -> Node:
    return pbtxt.parse(text, schema, "example")


def describe_example(text: str, directory: Path) -> ModelDescription:
    """The model `m`, which has a model.py, under a configuration."""
    model = directory / "m"
    (model / "1").mkdir(parents=True)
    (model / "1" / "model.py").touch()
    (model / "labels.txt").touch()
    (model / "config.pbtxt").write_text(text)
    return describe(model, None, ServerConfig(), ())


def test_the_tables_of_options_are_what_the_server_declares() -> None:
    assert document_options.with_tables(PAGE) == PAGE, "run make generate"


def test_there_are_fields_in_each_table() -> None:
    assert min(map(len, (APPLIED, REFUSED, IGNORED))) > 1


@pytest.mark.parametrize("text", APPLIED)
def test_fields_that_are_applied_are_accepted_in_silence(text: str, tmp_path: Path) -> None:
    assert describe_example(text, tmp_path).warnings == ()


@pytest.mark.parametrize("text", REFUSED)
def test_fields_that_are_refused_are_refused(text: str, tmp_path: Path) -> None:
    parse(text)
    with pytest.raises(ConfigError, match=r"config\.pbtxt:1:"):
        describe_example(text, tmp_path)


@pytest.mark.parametrize("text", IGNORED)
def test_fields_that_are_ignored_are_warned_about(text: str, tmp_path: Path) -> None:
    assert "has no effect here" in " ".join(describe_example(text, tmp_path).warnings)


def test_every_field_is_in_one_of_the_tables() -> None:
    listed = {name for text in (*APPLIED, *REFUSED, *IGNORED) for name in _names(parse(text))}
    assert not _all_names() - listed


@pytest.mark.parametrize("block", blocks("protobuf"), ids=str)
def test_configurations_are_valid(block: Block) -> None:
    name = Path(block.file).name
    assert name in {"server.pbtxt", "config.pbtxt"}, "the first line must be a comment that names the file"
    parse(block.text, SERVER if name == "server.pbtxt" else MODEL)


def _names(node: Node) -> Iterator[str]:
    for name, field in node.fields.items():
        yield name
        if name in DEEP:
            for part in field.value if isinstance(field.value, tuple) else (field.value,):
                yield from (f"{name}.{inner}" for inner in part.fields)


def _all_names() -> set[str]:
    deep = {f"{name}.{f.name}" for name in DEEP for f in message_type(MODEL.fields_by_name[name]).fields}
    return deep | {field.name for field in MODEL.fields}
