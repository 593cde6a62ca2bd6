"""Model versions as clients write them, in both protocols."""

import pytest

from broker.messages import ErrorCode
from frontends.errors import RequestError
from frontends.versions import NEWEST, parse_version


@pytest.mark.parametrize(
    ("text", "version"),
    [("", NEWEST), ("1", 1), ("0", 0), ("007", 7), ("1abc", 1), (" 12", 12), ("+3", 3), (str(2**63 - 1), 2**63 - 1)],
)
def test_leading_digits_are_the_version(text: str, version: int) -> None:
    assert parse_version(text) == version


@pytest.mark.parametrize("text", ["abc", "-", "99999999999999999999", "9" * 5000, "٣"])  # a digit, but not C's
def test_what_is_no_number_or_too_large_is_refused(text: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_version(text)
    assert caught.value.code == ErrorCode.INVALID_ARG
    assert caught.value.message == (
        f"failed to get model version from specified version string '{text}' (details: stol), "
        "version should be an integral value > 0"
    )


def test_a_negative_version_is_refused() -> None:
    with pytest.raises(RequestError) as caught:
        parse_version("-1")
    assert caught.value.code == ErrorCode.INVALID_ARG
    assert caught.value.message == ("invalid model version specified '-1' , version should be an integral value > 0")
