"""What a TensorRT engine completes and allows, without a GPU."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.workers.support import host, spec, tensor
from workers.backend import create
from workers.backends.tensorrt_plan import (
    Engine,
    EngineTensor,
    Profile,
    Range,
    check,
    complete,
    graph_batches,
    max_batch_size,
    pick,
    plugins,
    profiles_of,
)
from workers.errors import BackendError
from workers.model import ModelSpec

X = EngineTensor("X", "FP32", (-1, 3, -1), True)
Y = EngineTensor("Y", "FP16", (-1, 10), False)
SIZES = EngineTensor("SIZES", "INT32", (3,), True, is_shape=True)


def ranges(*shapes: tuple[int, ...]) -> Range:
    return Range(*shapes)


def engine(*most: int, more: tuple[EngineTensor, ...] = ()) -> Engine:
    """One input whose batch goes up to `most`, a profile for each."""
    made = [Profile(index, {"X": ranges((1, 3, 1), (size, 3, 100), (size, 3, 200))}) for index, size in enumerate(most)]
    return Engine((X, Y, *more), tuple(made))


def model(directory: Path, config: dict[str, Any] | None = None, **settings: str) -> ModelSpec:
    return spec(directory, config or {}, "tensorrt", "KIND_GPU", **settings)


def test_a_configuration_is_completed_from_the_engine(tmp_path: Path) -> None:
    found = complete(model(tmp_path), engine(4, 8))
    assert found == {
        "max_batch_size": 8,
        "dynamic_batching": {},
        "input": [{"name": "X", "data_type": "TYPE_FP32", "dims": [3, -1]}],
        "output": [{"name": "Y", "data_type": "TYPE_FP16", "dims": [10]}],
    }
    check(model(tmp_path).completed(found), engine(4, 8))


def test_only_what_is_missing_is_completed(tmp_path: Path) -> None:
    given = {"max_batch_size": 4, "input": [tensor("X", "TYPE_FP32", 3, 50)], "sequence_batching": {}}
    found = complete(model(tmp_path, given), engine(8))
    assert found == {"output": [{"name": "Y", "data_type": "TYPE_FP16", "dims": [10]}]}
    assert complete(model(tmp_path, {**given, "output": [tensor("Y", "TYPE_FP16", 10)]}), engine(8)) == {}
    assert complete(model(tmp_path, **{"auto-complete-config": "false"}), engine(8)) == {}


def test_a_fixed_first_dimension_is_no_batch(tmp_path: Path) -> None:
    fixed = Engine((X._replace(dims=(1, 3, -1)), Y), engine(1).profiles)
    assert max_batch_size(fixed) == 0
    assert complete(model(tmp_path), fixed)["input"] == [{"name": "X", "data_type": "TYPE_FP32", "dims": [1, 3, -1]}]


def test_the_smallest_input_limits_the_batch() -> None:
    other = EngineTensor("Z", "INT32", (-1,), True)
    profiles = [
        Profile(n, {"X": ranges((1, 3, 1), (1, 3, 1), (x, 3, 9)), "Z": ranges((1,), (1,), (z,))})
        for n, (x, z) in enumerate([(8, 2), (4, 4), (3, 16)])
    ]
    assert max_batch_size(Engine((X, other, Y), tuple(profiles))) == 4


def test_a_larger_batch_than_the_engine_s_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackendError) as error:
        complete(model(tmp_path, {"max_batch_size": 9}), engine(8))
    assert str(error.value) == (
        "autofill failed for model 'm': configuration specified max-batch 9 but TensorRT engine only supports "
        "max-batch 8"
    )


def test_shape_tensors_have_a_value_for_the_batch_first(tmp_path: Path) -> None:
    found = complete(model(tmp_path), engine(8, more=(SIZES,)))
    assert found["input"][1] == {"name": "SIZES", "data_type": "TYPE_INT32", "dims": [2], "is_shape_tensor": True}


@pytest.mark.parametrize(
    ("inputs", "outputs", "text"),
    [
        ([tensor("W", "TYPE_FP32", 3)], [], "unexpected inference input 'W', allowed inputs are: X"),
        ([tensor("X", "TYPE_FP16", 3, -1)], [], "unexpected datatype TYPE_FP16 for inference input 'X', expecting"),
        ([tensor("X", "TYPE_FP32", 4, -1)], [], "(shape [3, -1]) but the model configuration specifies 2 dimensions"),
        ([tensor("X", "TYPE_FP32", 3)], [], "the model expects 2 dimensions"),
        ([tensor("X", "TYPE_FP32", 3, 7)], [tensor("V", "TYPE_FP16", 10)], "unexpected inference output 'V'"),
        ([], [tensor("Y", "TYPE_FP16", 10)], "does not configure the engine's input(s) X"),
    ],
)
def test_what_does_not_fit_the_engine(
    tmp_path: Path, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]], text: str
) -> None:
    with pytest.raises(BackendError) as error:
        check(model(tmp_path, {"max_batch_size": 4, "input": inputs, "output": outputs}), engine(8))
    assert text in str(error.value)


def test_the_profiles_of_an_instance_s_group(tmp_path: Path) -> None:
    groups = [{"name": "m_0", "profile": ["2", "0"]}, {"name": "m_1"}]
    made = engine(1, 2, 4)
    assert [p.number for p in profiles_of(model(tmp_path, {"instance_group": groups}), made)] == [2, 0]
    assert [p.number for p in profiles_of(model(tmp_path, {"instance_group": groups[1:]}), made)] == [0]
    for wrong in ("3", "-1", "best"):
        with pytest.raises(BackendError, match=rf"asks for optimization profile '{wrong}', .* the profiles 0 to 2"):
            profiles_of(model(tmp_path, {"instance_group": [{"name": "m_0", "profile": [wrong]}]}), made)


def test_the_nearest_profile_that_fits_is_picked() -> None:
    profiles = [
        Profile(0, {"X": ranges((1, 1), (1, 10), (1, 100))}),
        Profile(1, {"X": ranges((1, 1), (8, 10), (8, 100))}),
        Profile(2, {"X": ranges((1, 1), (8, 90), (8, 100))}),
    ]
    assert pick(profiles, {"X": (1, 12)}).number == 0
    assert pick(profiles, {"X": (2, 12)}).number == 1
    assert pick(profiles, {"X": (8, 80)}).number == 2
    with pytest.raises(BackendError, match=r"X \[9, 1\]; there are: profile 0: X \[1, 1\] to \[1, 100\]; profile 1"):
        pick(profiles, {"X": (9, 1)})


SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 9))


@st.composite
def profile(draw: st.DrawFn) -> Range:
    columns = [sorted(draw(st.tuples(*[st.integers(1, 9)] * 3))) for _ in range(2)]
    least, best, most = zip(*columns, strict=True)
    return Range(least, best, most)


@given(st.lists(profile(), min_size=1, max_size=5), SHAPES)
def test_a_picked_profile_fits_and_none_that_fits_is_nearer(found: list[Range], shape: tuple[int, int]) -> None:
    profiles = [Profile(index, {"X": each}) for index, each in enumerate(found)]
    fitting = [each for each in found if each.holds(shape)]
    if not fitting:
        with pytest.raises(BackendError):
            pick(profiles, {"X": shape})
        return
    picked = pick(profiles, {"X": shape}).ranges["X"]
    assert picked.holds(shape)
    assert picked.distance(shape) == min(each.distance(shape) for each in fitting)


def test_batch_sizes_with_a_cuda_graph(tmp_path: Path) -> None:
    def sizes(cuda: dict[str, Any], **config: Any) -> set[int]:
        return set(graph_batches(model(tmp_path, {"max_batch_size": 10, "optimization": {"cuda": cuda}, **config})))

    assert sizes({}) == set()
    assert sizes({"graphs": True}) == {1, 2, 3, 4, 6, 8, 10}
    assert sizes({"graphs": True}, dynamic_batching={"preferred_batch_size": [4, 7]}) == {1, 4, 7, 10}
    assert sizes({"graphs": True, "graph_spec": [{"batch_size": 5}]}) == {5}
    assert sizes({"graphs": True}, max_batch_size=0) == {0}


def test_libraries_of_plugins(tmp_path: Path) -> None:
    assert plugins(model(tmp_path, plugins='"a.so;/b/c.so"')) == ["a.so", "/b/c.so"]
    assert plugins(model(tmp_path)) == []


@pytest.mark.parametrize("missing", ["tensorrt", "cupy"])
def test_a_package_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.delitem(sys.modules, "workers.backends.tensorrt", raising=False)
    monkeypatch.setitem(sys.modules, "cupy", ModuleType("cupy"))
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(BackendError) as error:
        create(model(tmp_path), host())
    assert str(error.value) == (
        f"backend 'tensorrt' needs the package '{missing}', which is not installed: pip install 'tidepool[gpu]'"
    )
