"""Padding: what the model gets, and that every request gets back its own, as long as it was."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.workers.support import arrays, no_inputs, request, spec, tensor
from workers import layout
from workers.backend import Execution
from workers.batching import Array, Computed, Joiner, execute_together


def model(inputs: list[dict[str, Any]], outputs: list[dict[str, Any]], **parameters: str) -> Joiner:
    """`pad_value_X` stands for `pad_value.X`."""
    given_parameters = {
        key.replace("value_", "value.").replace("buckets_", "buckets."): {"string_value": value}
        for key, value in parameters.items()
    }
    config = {"max_batch_size": 64, "input": inputs, "output": outputs, "parameters": given_parameters}
    return layout.joiner(spec(Path("/m"), config))


X = tensor("X", "TYPE_FP32", -1, 2)
Y = tensor("Y", "TYPE_FP32", -1, 2)
SHAPES = st.lists(st.tuples(st.integers(1, 3), st.integers(0, 9), st.just(2)), min_size=1, max_size=5)


@given(SHAPES, st.sampled_from(["", "4", "4, 8, 16"]))
def test_every_request_gets_its_own_as_long_as_it_was(shapes: list[tuple[int, ...]], buckets: str) -> None:
    joiner = model([X], [Y, tensor("N", "TYPE_INT64", 1)], pad_value_X="-7", pad_buckets_X=buckets)
    sizes = [int(size) for size in buckets.split(",") if size]
    longest = max(shape[1] for shape in shapes)
    sent = [np.random.rand(*shape).astype(np.float32) for shape in shapes]

    def double(inputs: dict[str, Array]) -> list[Computed]:
        assert inputs["X"].shape[1] == min([size for size in sizes if size >= longest], default=longest)
        assert (inputs["X"] == -7).sum() == inputs["X"].size - sum(array.size for array in sent)
        count = np.array([[(item != -7).sum()] for item in inputs["X"]], np.int64)
        return [Computed("Y", "FP32", inputs["X"] * 2), Computed("N", "INT64", count)]

    outcomes = execute_together([request(X=each) for each in sent], no_inputs().array, double, Execution(1), joiner)
    for array, outcome in zip(sent, outcomes, strict=True):
        np.testing.assert_array_equal(arrays(outcome)["Y"], array * 2)
        np.testing.assert_array_equal(arrays(outcome)["N"], np.full((len(array), 1), array[0].size))


def test_a_request_that_needs_no_padding_is_not_copied() -> None:
    array = np.ones((1, 4, 2), np.float32)
    batch, _ = model([X], [Y], pad_buckets_X="4").join([{"X": array}])
    assert batch["X"] is array


@pytest.mark.parametrize(
    ("array", "value", "expected"),
    [
        (np.array([[True]]), "1", True),
        (np.array([[1]], np.uint8), "255", 255),
        (np.array([[1]], np.int64), str(-(2**63)), -(2**63)),
        (np.array([[1]], np.float16), "-1e3", -1000.0),
        (np.array([["a"]], object), "[PAD]", "[PAD]"),
        (np.array([["a"]], object), "", ""),
        (np.array([[1]], np.int32), "", 0),
        (np.array([[True]]), "", False),
    ],
)
def test_every_datatype_has_its_padding(array: Array, value: str, expected: object) -> None:
    joiner = model([tensor("X", "TYPE_FP32", -1)], [], pad_value_X=value, pad_buckets_X="2")
    batch, _ = joiner.join([{"X": array}])
    assert batch["X"].tolist() == [[array[0, 0], expected]]
    assert batch["X"].dtype == array.dtype


def test_only_outputs_that_share_the_dimension_are_cut() -> None:
    outputs = [tensor("SAME", "TYPE_FP32", -1), tensor("FIXED", "TYPE_FP32", 4), tensor("OTHER", "TYPE_FP32", -1)]
    joiner = model([tensor("X", "TYPE_FP32", -1)], outputs, pad_value_X="0")
    parts = [{"X": np.ones((1, size), np.float32)} for size in (2, 4)]
    batch, sizes = joiner.join(parts)
    computed = [
        Computed("SAME", "FP32", batch["X"]),
        Computed("FIXED", "FP32", batch["X"]),
        Computed("OTHER", "FP32", np.ones((2, 5), np.float32)),
        Computed("POOLED", "FP32", np.ones(2, np.float32)),
    ]
    shapes = [{name: array.shape for name, array in arrays(o).items()} for o in joiner.split(computed, sizes, parts)]
    assert shapes == [
        {"SAME": (1, 2), "FIXED": (1, 4), "OTHER": (1, 5), "POOLED": (1,)},
        {"SAME": (1, 4), "FIXED": (1, 4), "OTHER": (1, 5), "POOLED": (1,)},
    ]


def test_inputs_are_padded_each_in_its_own_way() -> None:
    inputs = [tensor("A", "TYPE_FP32", -1), tensor("B", "TYPE_FP32", 2, -1)]
    joiner = model(inputs, [], pad_value_A="1", pad_buckets_B="8")
    parts = [{"A": np.zeros((1, a)), "B": np.zeros((1, 2, b))} for a, b in ((1, 3), (4, 2))]
    batch, _ = joiner.join(parts)
    assert (batch["A"].shape, batch["B"].shape) == ((2, 4), (2, 2, 8))
    assert batch["A"].tolist() == [[0, 1, 1, 1], [0, 0, 0, 0]]
