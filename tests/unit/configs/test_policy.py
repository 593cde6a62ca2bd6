"""Parameters of models that say how they are scheduled, beyond Triton."""

import re
from pathlib import Path

import pytest

from configs.description import ModelDescription, Padding, Tenants
from configs.errors import ConfigError
from configs.model import describe
from configs.server import ServerConfig

INPUTS = """
max_batch_size: 8
input { name: "IDS" data_type: TYPE_UINT8 dims: [ -1 ] }
input { name: "X" data_type: TYPE_FP32 dims: [ 3, -1 ] }
input { name: "FIXED" data_type: TYPE_FP32 dims: [ 4 ] }
input { name: "RAGGED" data_type: TYPE_FP32 dims: [ -1 ] allow_ragged_batch: true }
input { name: "TEXT" data_type: TYPE_STRING dims: [ -1 ] }
"""


def described(directory: Path, more: str = "", io: str = INPUTS, **parameters: str) -> ModelDescription:
    """`pad_value_X` stands for `pad_value.X`."""
    model = directory / "m"
    (model / "1").mkdir(parents=True)
    (model / "1" / "model.py").touch()
    lines = [io, more]
    for key, value in parameters.items():
        spelt = re.sub("^(pad_value|pad_buckets|tenant_weight)_", r"\1.", key)
        lines.append(f'parameters {{ key: "{spelt}" value {{ string_value: "{value}" }} }}')
    (model / "config.pbtxt").write_text("\n".join(lines))
    return describe(model, None, ServerConfig(), ())


def test_without_parameters_nothing_is_different(tmp_path: Path) -> None:
    found = described(tmp_path, other="1")
    assert (found.batch_key, found.tenants) == ("", None)
    assert not any(spec.padding for spec in found.inputs)


def test_what_is_said_arrives_in_the_broker(tmp_path: Path) -> None:
    found = described(
        tmp_path,
        batch_key="lora",
        pad_value_IDS="255",
        pad_buckets_X="64, 16,32",
        pad_value_TEXT="[PAD]",
        tenant_key="x-tenant",
        tenant_weight_gold="4",
        tenant_weight_free="0.5",
    )
    assert found.batch_key == "lora"
    assert found.tenants == Tenants("x-tenant", {"gold": 4.0, "free": 0.5})
    assert {spec.name: spec.padding for spec in found.inputs} == {
        "IDS": Padding(1),
        "X": Padding(2, (16, 32, 64)),
        "FIXED": None,
        "RAGGED": None,
        "TEXT": Padding(1),
    }
    assert ModelDescription.from_wire(found.to_wire()) == found


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"pad_value_NO": "0"}, "there is no input 'NO' to pad"),
        ({"pad_value_FIXED": "0"}, "input 'FIXED' cannot be padded: it needs exactly one dimension of any size (-1)"),
        ({"pad_buckets_RAGGED": "8"}, "input 'RAGGED' cannot be padded"),
        ({"pad_value_IDS": "256"}, "'pad_value.IDS' is '256', which is no TYPE_UINT8"),
        ({"pad_value_IDS": "-1"}, "'pad_value.IDS' is '-1', which is no TYPE_UINT8"),
        ({"pad_value_IDS": "1.5"}, "'pad_value.IDS' is '1.5', which is no TYPE_UINT8"),
        ({"pad_value_X": "zero"}, "'pad_value.X' is 'zero', which is no TYPE_FP32"),
        ({"pad_buckets_X": "16;32"}, "'pad_buckets.X' is '16;32', expected sizes such as '16, 32, 64'"),
        ({"pad_buckets_X": "0"}, "'pad_buckets.X' is '0', expected sizes"),
        ({"tenant_weight_gold": "4"}, "'tenant_weight.gold' needs 'tenant_key'"),
        ({"tenant_key": "t", "tenant_weight_a": "0"}, "'tenant_weight.a' is '0', must be a number from 0.001 to 1000"),
        ({"tenant_key": "t", "tenant_weight_a": "nan"}, "'tenant_weight.a' is 'nan', must be a number"),
        ({"tenant_key": "t", "tenant_weight_a": "much"}, "'tenant_weight.a' is 'much', must be a number"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, parameters: dict[str, str], expected: str) -> None:
    with pytest.raises(ConfigError) as raised:
        described(tmp_path, **parameters)
    (line,) = raised.value.messages
    assert "config.pbtxt:" in line
    assert expected in line


def test_models_without_batches_are_not_padded(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the model has no batches"):
        described(tmp_path, "", INPUTS.replace("max_batch_size: 8", ""), pad_value_X="0")


def test_tenants_and_a_common_order_contradict_each_other(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'tenant_key' and 'preserve_ordering' contradict each other"):
        described(tmp_path, "dynamic_batching { preserve_ordering: true }", tenant_key="t")
