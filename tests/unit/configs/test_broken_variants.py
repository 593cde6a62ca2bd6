"""Slips that people make in server.pbtxt: each prints one clear line that names the place and the way out."""

import re
from pathlib import Path

import pytest

from configs.backend_settings import BACKENDS
from configs.errors import ConfigError
from configs.model import describe
from configs.server import load

WORKING = """\
model_config_list: [
  { config: { name: "my_resnet" platform: "pytorch" max_batch_size: 16
      instance_group: [ { count: 2 kind: KIND_CPU } ] } }
]
backend_config: [
  { backend: "python"
    parameters: { key: "shm-default-size" value: "4294967296" # 4GB
    } }
]
"""


def start(tmp_path: Path, text: str) -> list[str]:
    """What a server with this file and one model says before it serves: nothing, or the lines of its error."""
    (tmp_path / "model_repository/my_resnet/1").mkdir(parents=True)
    (tmp_path / "model_repository/my_resnet/1/model.pt").touch()
    (tmp_path / "server.pbtxt").write_text(text)
    try:
        config = load([f"--config={tmp_path}/server.pbtxt"])
        describe(tmp_path / "model_repository/my_resnet", config.entries.get("my_resnet"), config, gpus=())
    except ConfigError as error:
        return str(error).splitlines()
    return []


def test_the_file_works_as_it_stands(tmp_path: Path) -> None:
    assert start(tmp_path, WORKING) == []


@pytest.mark.parametrize(
    ("good", "broken", "expected"),
    [
        (
            "max_batch_size",
            "max_bach_size",
            "2:53: unknown field 'max_bach_size' in ModelConfig; did you mean 'max_batch_size'?",
        ),
        (
            "model_config_list",
            "model_config_lst",
            "1:1: unknown field 'model_config_lst' in ServerConfig; did you mean 'model_config_list'?",
        ),
        ("count: 2", 'count: "two"', "3:34: expected an integer for 'count', got \"two\""),
        (
            "KIND_CPU } ] } }",
            "KIND_CPU } ] }",
            "4:1: unexpected ']': expected '}' for the bracket opened at line 2, column 3",
        ),
        (
            "count: 2",
            "count: -2",
            "3:25: instance group my_resnet_0 of model my_resnet has count -2, must be 1 to 1000",
        ),
        (
            "]\nbackend_config",
            ', { config: { name: "my_resnet" } } ]\nbackend_config',
            "4:15: model 'my_resnet' is configured twice, first at line 2",
        ),
        (
            'platform: "pytorch"',
            'backend: "pytorhc"',
            "2:33: unable to find backend library for backend 'pytorhc', try specifying runtime on the model "
            f"configuration. Backends here are {', '.join(BACKENDS)}; did you mean 'pytorch'?",
        ),
        ("KIND_CPU", "KIND_CUP", "3:42: unknown value 'KIND_CUP' for 'kind'; did you mean 'KIND_CPU'?"),
        ('name: "my_resnet"', "", "2:13: an entry of model_config_list must have a 'name'"),
        ("max_batch_size: 16", "max_batch_size: 16x", "2:69: '16x' is not a number"),
        ("max_batch_size: 16", "max_batch_size: 99999999999", "2:69: 99999999999 is out of range for 'max_batch_size'"),
        (
            "max_batch_size: 16",
            "dynamic_batching { } sequence_batching { }",
            "2:74: 'sequence_batching' cannot be set together with 'dynamic_batching' of line 2: choose one of them",
        ),
        (
            "max_batch_size: 16",
            "max_batch_size: 16 max_batch_size: 8",
            "2:72: 'max_batch_size' is set twice, first at line 2",
        ),
        ('"my_resnet"', '"my_resnet', "2:50: this string is not closed on its line"),
        (
            "KIND_CPU",
            "KIND_GPU",
            "3:25: instance group my_resnet_0 of model my_resnet has kind KIND_GPU but no GPUs are",
        ),
        (
            "max_batch_size: 16",
            'model_operations { op_library_filename: "x.so" }',
            "2:53: 'model_operations' of model 'my_resnet' is not built yet",
        ),
        ("4294967296", "4 GB", "backend_config: python,shm-default-size is '4 GB', expected a number of bytes"),
    ],
)
def test_a_broken_variant_prints_one_clear_line(tmp_path: Path, good: str, broken: str, expected: str) -> None:
    assert good in WORKING
    (line,) = start(tmp_path, WORKING.replace(good, broken, 1))
    assert re.search(r"(server\.pbtxt:|^)" + re.escape(expected), line), line


def test_a_bracket_that_is_never_closed_says_where_it_was_opened(tmp_path: Path) -> None:
    (line,) = start(tmp_path, WORKING.rstrip().removesuffix("]"))
    assert line.endswith(
        "server.pbtxt:9:1: expected ',' or ']' in the list opened at line 5, column 17, got the end of the file"
    )
