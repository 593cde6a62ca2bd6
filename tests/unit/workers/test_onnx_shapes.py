"""The shapes of a graph's outputs, told from its inputs'."""

from hypothesis import given
from hypothesis import strategies as st

from workers.backends.onnx_shapes import Dims, predict, recipes


def told(inputs: dict[str, Dims], dims: Dims, **shapes: tuple[int, ...]) -> tuple[int, ...] | None:
    found = recipes(inputs, {"y": dims})
    return predict(found["y"], shapes) if "y" in found else None


def test_sizes_and_names() -> None:
    assert told({"x": ("n", 3)}, ("n", 10), x=(4, 3)) == (4, 10)
    assert told({"x": ("n", 3), "z": ("m", "w")}, ("w", "n", "m"), x=(4, 3), z=(5, 6)) == (6, 4, 5)
    assert told({"x": ("n",)}, (), x=(4,)) == ()


def test_what_is_not_told() -> None:
    assert told({"x": ("n", 3)}, ("n", "k"), x=(4, 3)) is None
    assert told({"x": ("n", None)}, ("n", None), x=(4, 3)) is None
    assert told({"x": ("n", "")}, ("n", ""), x=(4, 3)) is None
    assert told({"x": ("n", -1)}, ("n", -1), x=(4, 3)) is None


def test_inputs_that_are_not_as_the_graph_says() -> None:
    assert told({"x": (3, "n")}, ("n",), x=(3,)) is None
    assert told({"x": ("n",)}, ("n",)) is None


DIM = st.one_of(st.integers(-1, 9), st.sampled_from(["a", "b", "c", ""]), st.none())
DIMS = st.lists(DIM, max_size=4)


@given(st.dictionaries(st.sampled_from("xyz"), DIMS), DIMS, st.dictionaries(st.sampled_from("abc"), st.integers(0, 9)))
def test_names_stand_for_the_same_size_everywhere(
    inputs: dict[str, list[int | str | None]], dims: list[int | str | None], sizes: dict[str, int]
) -> None:
    def size(dim: int | str | None) -> int:
        return sizes.get(dim, 5) if isinstance(dim, str) else 7 if dim is None or dim < 0 else dim

    shape = told(inputs, dims, **{name: tuple(map(size, ds)) for name, ds in inputs.items()})
    assert shape in (None, tuple(map(size, dims)))
