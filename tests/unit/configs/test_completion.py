"""What a model says of itself, applied to its description."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from configs.completion import complete
from configs.description import ModelDescription
from configs.errors import ConfigError
from configs.model import describe
from configs.server import ServerConfig

Describe = Callable[[str], ModelDescription]


@pytest.fixture
def described(tmp_path: Path) -> Describe:
    """The model `m`, which has a model.py, under a configuration."""
    directory = tmp_path / "m"
    (directory / "1").mkdir(parents=True)
    (directory / "1" / "model.py").touch()

    def describe_as(text: str) -> ModelDescription:
        (directory / "config.pbtxt").write_text(text)
        return describe(directory, None, ServerConfig(), ())

    return describe_as


def completed(described: Describe, text: str = "", **found: Any) -> ModelDescription:
    return complete(described(text), found)


def test_batching(described: Describe) -> None:
    found = completed(described, max_batch_size=4, dynamic_batching={})
    assert found.max_batch_size == found.config["max_batch_size"] == 4
    assert found.dynamic_batching is not None
    assert found.dynamic_batching.preferred_batch_size == (4,)
    assert found.config["dynamic_batching"]["preferred_batch_size"] == [4]


def test_a_configured_batcher_keeps_its_settings(described: Describe) -> None:
    found = completed(
        described, "max_batch_size: 2 dynamic_batching { max_queue_delay_microseconds: 100 }", max_batch_size=8
    )
    assert found.dynamic_batching is not None
    assert found.dynamic_batching.max_queue_delay == 1e-4
    assert found.max_batch_size == 8


def test_a_batcher_that_is_configured_later_counts(described: Describe) -> None:
    found = completed(described, "dynamic_batching { max_queue_delay_microseconds: 100 }", dynamic_batching={})
    assert found.dynamic_batching is not None
    assert found.dynamic_batching.max_queue_delay == 1e-4


def test_decoupled(described: Describe) -> None:
    assert completed(described, model_transaction_policy={"decoupled": True}).decoupled
    assert not completed(described).decoupled


def test_tensors_are_reported_with_every_field(described: Describe) -> None:
    found = completed(described, input=[{"name": "I", "data_type": "TYPE_FP32", "dims": [-1]}])
    (tensor,) = found.config["input"]
    assert (tensor["name"], tensor["data_type"], tensor["dims"], tensor["optional"]) == ("I", "TYPE_FP32", [-1], False)


def test_nothing_else_is_taken_over_and_the_order_of_fields_stays(described: Describe) -> None:
    before = described("")
    found = complete(before, {"parameters": {"a": {"string_value": "b"}}, "max_batch_size": 0})
    assert found.config == before.config
    fields = list(completed(described, dynamic_batching={}).config)
    assert fields.index("dynamic_batching") < fields.index("instance_group")


@pytest.mark.parametrize(
    "found",
    [
        {"max_batch_size": "many"},
        {"max_batch_size": -1},
        {"dynamic_batching": {"nonsense": 1}},
        {"input": [{"dims": "x"}]},
        {"input": b"x"},
    ],
)
def test_what_is_no_configuration(described: Describe, found: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="model 'm'"):
        complete(described(""), found)
