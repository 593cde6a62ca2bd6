"""What has changed counts when it has been still."""

from hypothesis import given
from hypothesis import strategies as st

from broker.stillness import Stillness


def test_a_change_counts_when_it_has_been_still_and_once() -> None:
    still = Stillness()
    still.take("a", 1)
    still.stir("a")
    assert [still.has_settled("a", state, looks=2) for state in (2, 3, 3, 3)] == [False, False, False, True]
    assert not still.restless


def test_what_is_back_where_it_was_has_not_changed() -> None:
    still = Stillness()
    still.take("a", 1)
    still.stir("a")
    assert [still.has_settled("a", state, looks=1) for state in (2, 1, 1)] == [False, False, False]
    assert not still.restless


def test_what_is_gone_is_a_state_too() -> None:
    still = Stillness()
    still.take("a", 1)
    still.stir("a")
    assert [still.has_settled("a", None, looks=1) for _ in range(2)] == [False, True]
    still.forget("a")
    still.stir("a")
    assert [still.has_settled("a", None, looks=1) for _ in range(2)] == [False, False], "it was never there"


@given(st.lists(st.integers(0, 2), max_size=30), st.integers(1, 3))
def test_the_last_state_is_always_acted_on_when_it_stays(states: list[int], looks: int) -> None:
    still = Stillness()
    still.take("a", 0)
    for state in [*states, *states[-1:] * (looks + 1)]:
        still.stir("a")
        if still.has_settled("a", state, looks):
            assert state != still.taken("a")
            still.take("a", state)
    assert still.taken("a") == (states or [0])[-1]
