"""What a model's own inputs and outputs complete in its configuration."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.workers.support import spec, tensor
from workers.backend import IO
from workers.completion import complete, declared
from workers.errors import BackendError

X = IO("x", "FP32", (-1, 3))
Y = IO("y", "BYTES", (-1,))
FIXED = IO("x", "FP32", (2, 3))
SCALAR = IO("x", "FP32", ())
FILLED_Y = {"name": "y", "data_type": "TYPE_STRING", "dims": [1], "reshape": {"shape": []}}
DECLARED = {"input": [tensor("x", "TYPE_FP32", 3)], "output": [tensor("y", "TYPE_STRING", 1)]}


def completed(config: dict[str, Any], *inputs: IO, outputs: tuple[IO, ...] = (Y,), **settings: str) -> dict[str, Any]:
    return complete(spec(Path(), config, "onnxruntime", **settings), inputs, outputs)


def test_a_model_without_a_configuration() -> None:
    found = completed({}, X)
    assert found == {
        "max_batch_size": 4,
        "dynamic_batching": {},
        "input": [tensor("x", "TYPE_FP32", 3)],
        "output": [FILLED_Y],
    }
    assert declared(found, "input") == (IO("x", "FP32", (3,)),)
    assert declared(found, "output") == (IO("y", "BYTES", (1,)),)


@pytest.mark.parametrize(
    ("config", "settings", "batching"),
    [
        ({"max_batch_size": 16}, {}, {"dynamic_batching": {}}),
        ({"max_batch_size": 1}, {}, {}),
        ({}, {"default-max-batch-size": "9"}, {"max_batch_size": 9, "dynamic_batching": {}}),
        ({}, {"default-max-batch-size": "1"}, {"max_batch_size": 1}),
        ({}, {"default-max-batch-size": "0"}, {}),
        ({}, {"default-max-batch-size": "-3"}, {}),
        ({"sequence_batching": {}}, {}, {"max_batch_size": 4}),
        ({"dynamic_batching": {"preferred_batch_size": [2]}}, {}, {"max_batch_size": 4}),
    ],
)
def test_batching(config: dict[str, Any], settings: dict[str, str], batching: dict[str, Any]) -> None:
    found = completed(config, X, **settings)
    assert {key: value for key, value in found.items() if key not in {"input", "output"}} == batching


@pytest.mark.parametrize(
    ("config", "settings"),
    [(DECLARED, {}), ({**DECLARED, "input": [], "batch_input": [{}]}, {}), ({}, {"auto-complete-config": "false"})],
)
def test_what_is_complete_or_unwanted_stays_as_it_is(
    config: dict[str, Any], settings: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.model._batch_input", lambda entry: entry)
    assert completed(config, X, **settings) == {}


@pytest.mark.parametrize("one", [FIXED, SCALAR])
def test_one_tensor_without_a_batch_dimension_is_enough_to_have_none(one: IO) -> None:
    for inputs, outputs in (((one,), (Y,)), ((X, one), (Y,)), ((X,), (Y, one))):
        assert not completed({}, *inputs, outputs=outputs).keys() & {"max_batch_size", "dynamic_batching"}
        with pytest.raises(BackendError, match="model does not support batching while non-zero max_batch_size"):
            completed({"max_batch_size": 2}, *inputs, outputs=outputs)


def test_only_what_is_missing_is_filled() -> None:
    assert completed({"input": DECLARED["input"]}, X).keys() == {"max_batch_size", "dynamic_batching", "output"}
    assert completed({"output": DECLARED["output"]}, X).keys() == {"max_batch_size", "dynamic_batching", "input"}


def test_controls_of_sequences_count_for_batching_but_are_not_declared() -> None:
    control = {"name": "go", "control": [{"kind": "CONTROL_SEQUENCE_START", "int32_false_true": [0, 1]}]}
    config = {"sequence_batching": {"control_input": [control]}}
    assert [entry["name"] for entry in completed(config, X, IO("go", "INT32", (-1, 1)))["input"]] == ["x"]
    assert "max_batch_size" not in completed(config, X, IO("go", "INT32", (1,)))


def test_a_default_that_is_no_number() -> None:
    with pytest.raises(BackendError, match="failed to convert 'many' to integer"):
        completed({}, X, **{"default-max-batch-size": "many"})


DIMS = st.lists(st.sampled_from([-1, 1, 5]), max_size=3).map(tuple)


@given(st.lists(DIMS, min_size=1, max_size=3), st.lists(DIMS, min_size=1, max_size=3), st.integers(0, 9))
def test_declared_tensors_have_the_files_rank(inputs: list[Any], outputs: list[Any], size: int) -> None:
    """With the batch's dimension and the reshape of scalars, what is declared is what the file has."""
    ins, outs = [[IO(f"{n}", "FP32", dims) for n, dims in enumerate(all_dims)] for all_dims in (inputs, outputs)]
    found = completed({}, *ins, outputs=tuple(outs), **{"default-max-batch-size": str(size)})
    lead = (-1,) if found.get("max_batch_size") else ()
    for key, ios in (("input", ins), ("output", outs)):
        shapes = [tuple(entry.get("reshape", {}).get("shape", entry["dims"])) for entry in found[key]]
        assert [(*lead, *shape) for shape in shapes] == [io.dims for io in ios]
        assert all(entry["dims"] for entry in found[key])
