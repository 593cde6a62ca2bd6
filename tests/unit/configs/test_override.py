"""Configurations and files as load requests bring them: right ones are taken, any others are a ConfigError."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.errors import ConfigError
from configs.override import from_json, write_files


def test_a_configuration_in_json() -> None:
    node = from_json('{"backend": "python", "max_batch_size": 8, "input": [{"name": "IN", "dims": ["3", -1]}]}', "m")
    assert (node.get("backend"), node.get("max_batch_size")) == ("python", 8)
    assert list(node.get("input")[0].get("dims")) == [3, -1]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "1",
        '{"colour": 1}',
        '{"max_batch_size": "many"}',
        '{"max_batch_size": 1e30}',
        '{"name": "\\ud800"}',
        '{"input": {"name": "IN"}}',
        '{"input": [{"data_type": "TYPE_NOTHING"}]}',
        '{"name": "a", "name": "b"}',
        "[" * 100_000,
        '{"a":' * 100_000,
    ],
)
def test_anything_else_is_refused_by_name(text: str) -> None:
    with pytest.raises(ConfigError, match="Invalid config override for model 'm': "):
        from_json(text, "m")


FIELDS = (
    "name",
    "backend",
    "max_batch_size",
    "input",
    "parameters",
    "instance_group",
    "dynamic_batching",
    "count",
    "x",
)
VALUES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["KIND_CPU", "TYPE_FP32"])
)


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4)


@given(st.dictionaries(st.sampled_from(FIELDS), st.recursive(VALUES, nested, max_leaves=6)))
def test_no_document_does_more_than_be_refused(document: dict[str, Any]) -> None:
    with contextlib.suppress(ConfigError):
        from_json(json.dumps(document), "m")


def test_files_are_written_below_the_directory(tmp_path: Path) -> None:
    write_files({"1/model.py": b"code", "1/a/b": b"", "./labels.txt": b"x", "config..pbtxt": b"y"}, tmp_path)
    found = {str(p.relative_to(tmp_path)): p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert found == {"1/model.py": b"code", "1/a/b": b"", "labels.txt": b"x", "config..pbtxt": b"y"}


@pytest.mark.parametrize("name", ["../x", "1/../../x", "/etc/x", "", ".", "a\0b", "1/.."])
def test_nothing_is_written_when_one_path_leaves_it(tmp_path: Path, name: str) -> None:
    inside = tmp_path / "model"
    inside.mkdir()
    with pytest.raises(ConfigError, match="must stay within model directory"):
        write_files({"1/model.py": b"code", name: b"x"}, inside)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@given(names=st.sets(st.text(max_size=20) | st.sampled_from(["a/../b", "..", "a//b", "~", "a\\..\\b"]), max_size=4))
def test_no_name_leads_outside(tmp_path_factory: pytest.TempPathFactory, names: set[str]) -> None:
    outside = tmp_path_factory.mktemp("outside")
    inside = outside / "model"
    inside.mkdir()
    with contextlib.suppress(ConfigError, OSError):
        write_files(dict.fromkeys(names, b"x"), inside)
    assert [path for path in outside.iterdir() if path != inside] == []
