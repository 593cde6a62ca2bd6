"""What the backends repeat, square and sequence ask of a configuration."""

from pathlib import Path
from typing import Any

import pytest

from tests.unit.workers.support import host, spec, tensor
from workers.backend import Interface
from workers.backends.repeat import RepeatBackend
from workers.backends.sequence import SequenceBackend
from workers.backends.square import INPUTS, OUTPUTS, SquareBackend
from workers.errors import BackendError

IN, OUT = tensor("IN", "TYPE_INT32", 1), tensor("OUT", "TYPE_INT32", 1)
DECOUPLED = {"model_transaction_policy": {"decoupled": True}}


def square(config: dict[str, Any]) -> Interface:
    return SquareBackend(spec(Path("/m"), config, "square"), host()).load()


def test_nothing_is_completed_where_all_is_there() -> None:
    assert square({**DECOUPLED, "input": [IN], "output": [OUT]}) == Interface()


def test_what_is_missing_is_completed() -> None:
    found = square({"output": [OUT]})
    assert (found.inputs, found.outputs) == (INPUTS, ())
    assert found.config == {**DECOUPLED, "input": [IN]}
    assert square({}).outputs == OUTPUTS


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"model_transaction_policy": {"decoupled": False}}, "decoupled: true in its model_transaction_policy"),
        ({"input": [tensor("IN", "TYPE_FP32", 1)]}, "needs the inputs 'IN' of TYPE_INT32"),
        ({"output": [OUT, IN]}, "needs the outputs 'OUT' of TYPE_INT32"),
    ],
)
def test_what_cannot_be_is_refused(config: dict[str, Any], expected: str) -> None:
    with pytest.raises(BackendError, match=f"unable to load model 'm', the backend 'square' {expected}|{expected}"):
        square(config)


def test_nothing_is_completed_where_that_is_forbidden() -> None:
    model = spec(Path("/m"), {}, "square")
    model.settings["auto-complete-config"] = "false"
    with pytest.raises(BackendError, match="model configuration is not complete for model 'm'"):
        SquareBackend(model, host()).load()


def test_repeat_has_no_batches() -> None:
    with pytest.raises(BackendError, match="does not support batching"):
        RepeatBackend(spec(Path("/m"), {"max_batch_size": 1}, "repeat"), host()).load()


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"input": [IN]},
        {"input": [IN], "output": [tensor("OUT", "TYPE_INT64", 1)]},
        {"input": [tensor("IN", "TYPE_STRING", 1)], "output": [tensor("OUT", "TYPE_STRING", 1)]},
        {"input": [tensor("IN", "TYPE_BF16", 1)], "output": [tensor("OUT", "TYPE_BF16", 1)]},
    ],
)
def test_sequences_are_of_numbers(config: dict[str, Any]) -> None:
    with pytest.raises(BackendError, match="needs an input and an output of the same type of number"):
        SequenceBackend(spec(Path("/m"), config, "sequence"), host()).load()
