"""Ragged batches: what the model is told of its requests, and what each request gets back."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.workers.support import arrays, no_inputs, request, spec, tensor
from workers import layout, ragged
from workers.backend import Execution
from workers.batching import PLAIN, Array, Computed, execute_apart, execute_together
from workers.errors import BackendError

KINDS = {
    "BATCH_ELEMENT_COUNT": [2, 4, 1, 3],
    "BATCH_ACCUMULATED_ELEMENT_COUNT": [2, 6, 7, 10],
    "BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO": [0, 2, 6, 7, 10],
    "BATCH_MAX_ELEMENT_COUNT_AS_SHAPE": [0, 0, 0, 0],
    "BATCH_ITEM_SHAPE": [[2], [2], [2], [1], [3]],
    "BATCH_ITEM_SHAPE_FLATTEN": [2, 2, 2, 1, 3],
}
SHAPES = [(1, 2), (2, 2), (1, 1), (1, 3)]


@pytest.mark.parametrize("datatype", ["INT32", "FP32"])
@pytest.mark.parametrize(("kind", "content"), KINDS.items())
def test_what_each_kind_says_of_requests_of_2_4_1_and_3_elements(kind: str, content: list[Any], datatype: str) -> None:
    array = ragged.describe(kind, datatype, SHAPES, has_batch=True)
    assert array.tolist() == content
    assert array.dtype == {"INT32": np.int32, "FP32": np.float32}[datatype]


def test_without_a_batch_dimension_the_whole_shape_is_the_items() -> None:
    assert ragged.describe("BATCH_ITEM_SHAPE", "INT32", [(2, 3)], has_batch=False).tolist() == [[2, 3]]
    assert ragged.describe("BATCH_ELEMENT_COUNT", "INT32", [(2, 3)], has_batch=False).tolist() == [6]


def model(directory: Path, max_batch_size: int = 64, dims: tuple[int, ...] = (-1,)) -> layout.Joiner:
    """X is ragged, F is not; COUNTS says how many elements of X there are; Y is as X."""
    config = {
        "max_batch_size": max_batch_size,
        "input": [tensor("X", "TYPE_FP32", *dims, allow_ragged_batch=True), tensor("F", "TYPE_FP32", 1)],
        "output": [tensor("Y", "TYPE_FP32", *dims), tensor("G", "TYPE_FP32", 1)],
        "batch_input": [
            {
                "kind": "BATCH_ELEMENT_COUNT",
                "target_name": ["COUNTS"],
                "data_type": "TYPE_INT32",
                "source_input": ["X"],
            }
        ],
        "batch_output": [
            {"kind": "BATCH_SCATTER_WITH_INPUT_SHAPE", "target_name": ["Y"], "source_input": ["X"]},
        ],
    }
    return layout.joiner(spec(directory, config))


def double(inputs: dict[str, Array]) -> list[Computed]:
    """Y is twice X, G is F."""
    assert inputs["X"].ndim == 1
    assert inputs["COUNTS"].sum() == inputs["X"].size
    return [Computed("Y", "FP32", inputs["X"] * 2), Computed("G", "FP32", inputs["F"])]


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 4), st.integers(1, 2)), min_size=1, max_size=5))
def test_every_request_gets_its_own_in_its_own_shape(shapes: list[tuple[int, ...]]) -> None:
    joiner = model(Path("/m"), dims=(-1, -1))
    sent = [
        {"X": np.random.rand(*shape).astype(np.float32), "F": np.full((shape[0], 1), number, np.float32)}
        for number, shape in enumerate(shapes)
    ]
    outcomes = execute_together([request(**each) for each in sent], no_inputs().array, double, Execution(1), joiner)
    for each, outcome in zip(sent, outcomes, strict=True):
        np.testing.assert_array_equal(arrays(outcome)["Y"], each["X"] * 2)
        np.testing.assert_array_equal(arrays(outcome)["G"], each["F"])


def test_without_a_batch_dimension_every_request_is_a_batch(tmp_path: Path) -> None:
    sent = [{"X": np.ones(n, np.float32), "F": np.ones(1, np.float32)} for n in (2, 3)]
    joiner = model(tmp_path, max_batch_size=0)
    outcomes = execute_apart([request(**each) for each in sent], no_inputs().array, double, Execution(1), joiner)
    assert [arrays(outcome)["Y"].shape for outcome in outcomes] == [(2,), (3,)]


def test_an_output_that_is_too_small_is_an_error() -> None:
    with pytest.raises(BackendError, match=r"output 'Y' has shape \[4\], which cannot be cut into parts of dims"):
        ragged.scatter("Y", np.zeros(4), (-1, -1), [(1, 2), (1, 3)])
    with pytest.raises(BackendError, match="cannot be cut"):
        ragged.scatter("Y", np.zeros(4), (-1, -1), [(2,)])
    first, second = ragged.scatter("Y", np.arange(8), (-1, 2), [(1, 9), (2, 9)])
    assert (first.tolist(), second.tolist()) == ([[0, 1]], [[2, 3], [4, 5]]), "more than wanted is left over"


def test_a_batch_without_the_input_that_describes_it_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="input 'X' is needed to describe the batch"):
        model(tmp_path).join([{"F": np.ones((1, 1))}])


def test_models_without_any_of_it_are_joined_plainly(tmp_path: Path) -> None:
    assert layout.joiner(spec(tmp_path, {"max_batch_size": 8, "input": [tensor("X", "TYPE_FP32", 1)]})) is PLAIN
