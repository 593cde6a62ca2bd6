"""Restricted APIs: what opens them."""

from multidict import CIMultiDict

from frontends.restricted import Restrictions


def test_a_header_opens_a_group() -> None:
    found = Restrictions.parse(["model-repository,shared-memory:Admin-Key=a=b", "health:k=v"])
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
    assert Restrictions.parse([]).refusal("inference", {}) is None
