"""Outputs as their highest classes: values, indices and labels as Triton writes them."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.messages import ErrorCode
from frontends.classification import Classes, classify
from frontends.errors import RequestError
from shm.ref import TensorRef
from shm.tensor import NUMPY, as_array

SINGLE, BATCHED = Classes(False, {}), Classes(True, {})


def classified(
    values: list[Any], count: int, classes: Classes = SINGLE, datatype: str = "FP32", shape: tuple[int, ...] = ()
) -> tuple[tuple[int, ...], list[str]]:
    data = np.array(values, NUMPY[datatype]).tobytes()
    ref = TensorRef("O", datatype, shape or (len(values),), len(data), None)
    found = classify(ref, data, count, classes)
    assert (found.name, found.datatype, found.byte_size) == ("O", "BYTES", len(found.data or b""))
    texts = as_array("BYTES", found.shape, found.data or b"")
    return found.shape, [text.decode() for text in texts.reshape(-1)]


def test_values_indices_and_labels() -> None:
    labels = Classes(False, {"O": ("cat", "", "dog"), "P": ("x",) * 9})
    assert classified([2.5, 1, 3, 4], 9, labels) == (
        (4,),
        ["4.000000:3", "3.000000:2:dog", "2.500000:0:cat", "1.000000:1"],
    )
    assert classified([-3, 2**62, 0], 2, labels, "INT64") == ((2,), [f"{2**62}:1", "0:2:dog"])
    assert classified([1, 2**64 - 1], 2, SINGLE, "UINT64") == ((2,), [f"{2**64 - 1}:1", "1:0"])
    assert classified([-128, 127], 2, SINGLE, "INT8") == ((2,), ["127:1", "-128:0"])


def test_each_batch_item_has_its_own_classes() -> None:
    expected = ["4.000000:1", "3.000000:0", "9.000000:3", "8.000000:2"]
    assert classified([3, 4, 1, 0, 6, 7, 8, 9], 2, BATCHED, shape=(2, 2, 2)) == ((2, 2), expected)
    assert classified([], 2, BATCHED, shape=(0, 4)) == ((0, 2), [])
    assert classified([], 2, BATCHED, shape=(2, 0)) == ((2, 0), [])
    assert classified([7], 2, SINGLE, shape=()) == ((1,), ["7.000000:0"])


def test_numbers_that_are_none_come_last() -> None:
    values = [float("nan"), float("-inf"), float("inf"), 1.0, 1.0]
    assert classified(values, 5)[1] == ["inf:2", "1.000000:3", "1.000000:4", "-inf:1", "nan:0"]


@given(st.lists(st.integers(-(2**15), 2**15 - 1), min_size=1), st.integers(1, 40))
def test_the_highest_come_first(values: list[int], count: int) -> None:
    _, texts = classified(values, count, SINGLE, "INT16")
    found = [tuple(map(int, text.split(":"))) for text in texts]
    assert found == sorted(((v, i) for i, v in enumerate(values)), key=lambda pair: (-pair[0], pair[1]))[:count]


@pytest.mark.parametrize("datatype", ["BOOL", "FP16", "BF16", "BYTES"])
def test_datatypes_without_an_order(datatype: str) -> None:
    with pytest.raises(RequestError) as caught:
        classify(TensorRef("O", datatype, (1,), 2, None), b"\0\0", 1, SINGLE)
    assert (caught.value.code, caught.value.message) == (
        ErrorCode.INVALID_ARG,
        f"class result not available for output due to unsupported type '{datatype}'",
    )


def test_what_cannot_be_classified() -> None:
    with pytest.raises(RequestError, match="classification output tensor too large") as caught:
        classify(TensorRef("O", "INT8", (1_000_001,), 1_000_001, None), bytes(1_000_001), 2**64 - 1, SINGLE)
    assert caught.value.code == ErrorCode.INVALID_ARG
    with pytest.raises(RequestError, match="output 'O' is malformed") as caught:
        classify(TensorRef("O", "FP32", (2,), 4, None), b"1234", 1, SINGLE)
    assert caught.value.code == ErrorCode.INTERNAL
