"""A model's configuration and files as a load request brings them: JSON for config.pbtxt, contents by path."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from google.protobuf import json_format, text_format
from google.protobuf.message_factory import GetMessageClass

from configs import pbtxt
from configs.errors import ConfigError
from configs.proto.schema import message
from configs.tree import Node

_SCHEMA = message("inference.ModelConfig")


def from_json(text: str, model: str) -> Node:
    """A ModelConfig in JSON (proto field names, enum values by name). Raises ConfigError for unknown fields too."""
    parsed = GetMessageClass(_SCHEMA)()
    try:
        json_format.Parse(text, parsed)
    except json_format.ParseError as error:
        raise ConfigError(f"Invalid config override for model '{model}': {error}") from None
    return pbtxt.parse(text_format.MessageToString(parsed), _SCHEMA, f"config override of '{model}'")


def write_files(files: Mapping[str, bytes], directory: Path) -> None:
    """Write a model's files below `directory`. Raises ConfigError for a path that would leave it, before any write."""
    for name in files:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name:
            raise ConfigError(
                f"Invalid file parameter 'file:{name}' with normalized path '{path}' must stay within model directory."
            )
    for name, content in files.items():
        target = directory / PurePosixPath(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
