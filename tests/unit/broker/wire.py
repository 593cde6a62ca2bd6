"""Hypothesis strategies for every message of the fabric, made from the annotations of its fields."""

from types import UnionType
from typing import Any, get_args, get_origin

from hypothesis import strategies as st

from broker import messages
from shm.ref import TensorRef

CLASSES: tuple[type[Any], ...] = get_args(messages.Message)

INTEGERS = st.integers(-(2**63), 2**64 - 1)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
PLAIN = st.none() | st.booleans() | INTEGERS | st.floats(allow_nan=False) | TEXTS | st.binary(max_size=4)
ANYTHING = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)
REFS = st.builds(
    TensorRef,
    TEXTS,
    TEXTS,
    st.lists(INTEGERS, max_size=3).map(tuple),
    st.integers(0, 2**63),
    st.none() | st.binary(max_size=8),
    TEXTS,
    st.integers(0, 2**63),
    INTEGERS,
    INTEGERS,
)
_BY_TYPE: dict[Any, st.SearchStrategy[Any]] = {
    int: INTEGERS,
    str: TEXTS,
    bool: st.booleans(),
    float: st.floats(allow_nan=False),
    bytes: st.binary(max_size=8),
    type(None): st.none(),
    Any: ANYTHING,
    TensorRef: REFS,
}


def strategy(annotation: Any) -> st.SearchStrategy[Any]:
    """Values of a field."""
    if annotation in _BY_TYPE:
        return _BY_TYPE[annotation]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, UnionType):
        return st.one_of([strategy(each) for each in arguments])
    if origin is tuple and arguments[-1] is ...:
        return st.lists(strategy(arguments[0]), max_size=3).map(tuple)
    if origin is tuple:
        return st.tuples(*[strategy(each) for each in arguments])
    if origin is dict:
        return st.dictionaries(strategy(arguments[0]), strategy(arguments[1]), max_size=3)
    return st.builds(annotation, *[strategy(each) for each in annotation.__annotations__.values()])


MESSAGES = {cls: strategy(cls) for cls in CLASSES}
EVERYTHING = st.one_of(list(MESSAGES.values()))
