"""What `parameters` of a model say about its place in memory."""

import pytest

from configs.residency import Residency, problems, read


def test_without_parameters_a_model_is_as_any_other() -> None:
    assert read({}) == Residency(is_pinned=False, idle_ttl=None, memory_budget=0, min_count=1, max_count=0)


def test_everything_can_be_said() -> None:
    said = {"pinned": "True", "idle_ttl": "2.5", "memory_budget": "1024", "min_count": "2", "max_count": "4"}
    assert read(said) == Residency(True, 2.5, 1024, 2, 4)


def test_a_range_may_leave_out_one_end() -> None:
    assert read({"max_count": "3"}) == Residency(min_count=1, max_count=3)
    assert read({"min_count": "3"}) == Residency(min_count=3, max_count=3)
    assert read({"min_count": "0"}) == Residency(min_count=0, max_count=1)


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ({"pinned": "yes"}, "'pinned' is 'yes', must be true or false"),
        ({"idle_ttl": "-1"}, "'idle_ttl' is '-1', must be seconds"),
        ({"idle_ttl": "nan"}, "'idle_ttl' is 'nan'"),
        ({"idle_ttl": "soon"}, "'idle_ttl' is 'soon'"),
        ({"memory_budget": "1 GB"}, "'memory_budget' is '1 GB', must be an integer"),
        ({"max_count": "0"}, "'max_count' is 0, must be 1 or more"),
        ({"min_count": "3", "max_count": "2"}, "'max_count' is 2, must be 1 or more and not less than 'min_count'"),
        ({"max_count": "1001"}, "'max_count' is '1001', must be an integer from 0 to 1000"),
        ({"min_count": "0", "pinned": "true"}, "'pinned' and 'min_count' 0 contradict each other"),
    ],
)
def test_what_cannot_be_is_refused(said: dict[str, str], text: str) -> None:
    (problem,) = problems({"instance_group": [{}]}, said)
    assert text in problem


def test_an_ensemble_has_no_range() -> None:
    (problem,) = problems({}, {"max_count": "2"})
    assert "an ensemble has not" in problem
    assert not list(problems({}, {"pinned": "true"}))
