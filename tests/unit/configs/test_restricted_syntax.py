"""The syntax of restricted APIs."""

import pytest

from configs.restricted import APIS, problems


def test_groups_of_apis_with_a_key_and_a_value() -> None:
    assert list(problems(["health,metadata:x-key=secret", "trace:other=a=b"], "api")) == []
    assert list(problems([f"{','.join(APIS)}:key="], "protocol")) == []


@pytest.mark.parametrize(
    ("groups", "word", "error"),
    [
        (["health"], "api", "'health': write <api>[,<api>...]:<key>=<value>"),
        (["health:key"], "protocol", "'health:key': write <protocol>[,<protocol>...]:<key>=<value>"),
        (["health:=value"], "api", "'health:=value': write <api>"),
        (["helth:k=v"], "api", "unknown restricted api 'helth', there are: health, metadata, inference"),
        (["helth:k=v"], "protocol", "unknown restricted protocol 'helth'"),
        (["health:k=v", "trace,health:k=v"], "api", "restricted api 'health' can not be specified in multiple config"),
    ],
)
def test_what_is_wrong_is_said(groups: list[str], word: str, error: str) -> None:
    (found,) = problems(groups, word)
    assert found.startswith(error)
