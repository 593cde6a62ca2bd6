"""Headers that become parameters."""

import pytest

from broker.messages import ErrorCode
from frontends.errors import RequestError
from frontends.forwarding import Forwarding


def test_a_pattern_is_found_anywhere_in_a_name_whatever_its_case() -> None:
    headers = [("X-User-Id", "7"), ("Host", "h"), ("my-USER", "é"), ("x-user-id", "8")]
    assert Forwarding("user").parameters(headers) == {"X-User-Id": "7", "my-USER": "é", "x-user-id": "8"}
    assert Forwarding("^user$").parameters(headers) == {}
    assert Forwarding("").parameters(headers) == {}
    assert list(Forwarding(".*").parameters(headers)) == ["X-User-Id", "Host", "my-USER", "x-user-id"]


def test_a_value_that_is_no_utf8_is_latin_1() -> None:
    value = b"caf\xe9".decode("utf-8", "surrogateescape")
    assert Forwarding("n").parameters([("n", value)]) == {"n": "café"}


@pytest.mark.parametrize("name", ["priority", "timeout", "sequence_id", "headers", "triton_x"])
def test_names_that_mean_something_else(name: str) -> None:
    assert Forwarding("user").parameters([(name, "1")]) == {}
    with pytest.raises(RequestError) as caught:
        Forwarding(".").parameters([(name, "1")])
    assert (caught.value.code, caught.value.message) == (
        ErrorCode.INVALID_ARG,
        f"Header '{name}' is reserved for Triton usage and cannot be forwarded.",
    )
