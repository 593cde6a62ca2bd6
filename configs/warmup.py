"""Checks of `model_warmup` as it stands in the text, with Triton's wording; one line per problem."""

from collections.abc import Iterator
from pathlib import Path

from configs.tree import Node


def problems(config: Node, directory: Path) -> Iterator[str]:
    """What is wrong with the samples; whether they suit the model is seen when it has been loaded."""
    for sample in config.get("model_warmup"):
        where = f"(warmup sample '{sample.get('name')}')"
        for name, given in sample.get("inputs").items():
            for position, text in _input_problems(given, name, directory):
                yield f"{position}: {text} {where}"


def _input_problems(given: Node, name: str, directory: Path) -> Iterator[tuple[object, str]]:
    if given.get("data_type") == "TYPE_INVALID":
        yield given.at("data_type"), f"warmup setting expects input '{name}' to have data_type set"
    if any(dim < 0 for dim in given.get("dims")):
        text = f"warmup setting expects all variable-size dimensions are specified for input '{name}'"
        yield given.at("dims"), text
    if not any(kind in given for kind in ("zero_data", "random_data", "input_data_file")):
        yield given.position, f"warmup setting expects input '{name}' to have input_data_type set"
    file = given.get("input_data_file")
    if file and not (directory / "warmup" / file).resolve().is_relative_to(directory.resolve()):
        yield given.at("input_data_file"), f"input_data_file '{file}' of input '{name}' is outside model directory"
