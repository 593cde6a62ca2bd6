"""Joining requests to batches and taking outputs apart again."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.messages import ErrorCode
from tests.unit.workers.support import arrays, no_inputs, request
from workers.backend import Execution
from workers.batching import Array, Computed, concatenate, execute_apart, execute_together, split
from workers.errors import BackendError


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6))
def test_split_is_the_inverse_of_concatenate(sizes: list[int]) -> None:
    parts = [
        {
            "a": np.full((size, 3), number, dtype=np.float32),
            "s": np.array([str(number).encode()] * size, dtype=np.object_),
        }
        for number, size in enumerate(sizes)
    ]
    batch, counted = concatenate(parts)
    assert counted == sizes
    outcomes = split([Computed("a", "FP32", batch["a"]), Computed("s", "BYTES", batch["s"])], sizes)
    for part, outcome in zip(parts, outcomes, strict=True):
        for name, array in arrays(outcome).items():
            np.testing.assert_array_equal(array, part[name])


def test_a_single_request_is_not_copied() -> None:
    array = np.ones((2, 2))
    batch, _ = concatenate([{"a": array}])
    assert batch["a"] is array


@pytest.mark.parametrize("array", [np.ones(2), np.ones((4, 1)), np.ones(())])
def test_an_output_of_another_batch_size(array: Array) -> None:
    with pytest.raises(
        BackendError, match=r"output 'y' has shape \[.*\], its first dimension must be the batch size 3"
    ):
        split([Computed("y", "FP64", array)], [1, 2])


def test_requests_with_other_inputs() -> None:
    with pytest.raises(BackendError, match="must have the same inputs"):
        concatenate([{"a": np.ones(1)}, {"b": np.ones(1)}])


@pytest.mark.parametrize("execute", [execute_together, execute_apart])
def test_a_request_that_cannot_be_read_fails_alone(execute: object) -> None:
    assert callable(execute)
    good = request(x=np.ones((1, 1), dtype=np.float32))
    gone = good._replace(inputs=(good.inputs[0]._replace(data=None, region="gone"),))

    def run(inputs: dict[str, Array]) -> list[Computed]:
        return [Computed("y", "FP32", inputs["x"])]

    first, second, third = execute((gone, good, good), no_inputs().array, run, Execution(1))
    assert isinstance(first, BackendError)
    assert first.code == ErrorCode.UNAVAILABLE
    assert arrays(second)["y"].tolist() == arrays(third)["y"].tolist() == [[1.0]]
    (only,) = execute((gone,), no_inputs().array, run, Execution(1))
    assert isinstance(only, BackendError)
