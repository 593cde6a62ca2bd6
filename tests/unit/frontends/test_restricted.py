"""Restricted APIs: how they are declared and what opens them."""

import pytest
from multidict import CIMultiDict

from frontends.restricted import CATEGORIES, Restrictions


def test_a_header_opens_a_group() -> None:
    found = Restrictions.parse(["model-repository,Shared-memory".lower() + ":Admin-Key=a=b", "health:k=v"])
    text = "This API is restricted, expecting header 'Admin-Key'"
    for category in ("model-repository", "shared-memory"):
        assert found.refusal(category, {}) == text
        assert found.refusal(category, {"admin-key": "A=b"}) == text
        assert found.refusal(category, {"k": "v"}) == text
        assert found.refusal(category, CIMultiDict({"ADMIN-key": "a=b"})) is None
    assert found.refusal("inference", {}) is None


def test_grpc_has_its_own_words() -> None:
    found = Restrictions.parse(["inference:Key=value"], "protocol", "triton-grpc-protocol-")
    text = "This protocol is restricted, expecting header 'triton-grpc-protocol-Key'"
    assert found.refusal("inference", {"key": "value"}) == text
    assert found.refusal("inference", {"triton-grpc-protocol-key": "value"}) is None


def test_nothing_is_restricted_by_default() -> None:
    assert {Restrictions.parse([]).refusal(category, {}) for category in CATEGORIES} == {None}


@pytest.mark.parametrize("flag", ["", "health", "health:", "health:k", "health:k=", "health:=v", ":k=v", "health,k=v"])
def test_the_form_of_a_group(flag: str) -> None:
    with pytest.raises(ValueError) as caught:
        Restrictions.parse([flag])
    assert str(caught.value) == f"'{flag}' is not of the form <api>[,<api>...]:<key>=<value>"


def test_categories_are_known_and_in_one_group() -> None:
    with pytest.raises(ValueError, match=r"^unknown restricted api 'infer'$"):
        Restrictions.parse(["health,infer:k=v"])
    with pytest.raises(ValueError, match=r"^unknown restricted protocol ''$"):
        Restrictions.parse(["health,:k=v"], "protocol")
    text = r"^restricted api 'health' can not be specified in multiple config groups$"
    with pytest.raises(ValueError, match=text):
        Restrictions.parse(["health,trace:k=v", "logging,health:l=w"])
