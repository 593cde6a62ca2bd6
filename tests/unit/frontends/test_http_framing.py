"""How much of a body is JSON: in a header or in the content type."""

import pytest
from multidict import CIMultiDict

from frontends.errors import RequestError
from frontends.http.framing import ContentTypeFraming, Framing, HeaderFraming

HEADER, TYPED = HeaderFraming(), ContentTypeFraming("application/vnd.x+json")


@pytest.mark.parametrize(
    ("framing", "headers", "length"),
    [
        (HEADER, {}, None),
        (HEADER, {"inference-header-content-length": "12"}, 12),
        (HEADER, {"Inference-Header-Content-Length": "-1"}, -1),
        (TYPED, {}, None),
        (TYPED, {"Content-Type": "application/json"}, None),
        (TYPED, {"Inference-Header-Content-Length": "12"}, None),
        (TYPED, {"Content-Type": "application/vnd.x+json"}, None),
        (TYPED, {"content-type": "application/vnd.x+json;json-header-size=12"}, 12),
        (TYPED, {"Content-Type": "application/vnd.x+json; json-header-size=0"}, 0),
    ],
)
def test_lengths(framing: Framing, headers: dict[str, str], length: int | None) -> None:
    assert framing.length(CIMultiDict(headers)) == length


@pytest.mark.parametrize("framing", [HEADER, TYPED])
def test_what_is_written_is_read(framing: Framing) -> None:
    assert framing.length(CIMultiDict(framing.headers(345))) == 345


def test_lengths_that_are_none() -> None:
    for value, text in (
        ("abc", "Unable to parse inference header size, got: abc"),
        ("", "Unable to parse inference header size, got: "),
        (
            "9999999999",
            "Unable to parse inference header size, value is out of range [ -2147483648, 2147483647 ], got: 9999999999",
        ),
    ):
        with pytest.raises(RequestError) as caught:
            TYPED.length({"Content-Type": f"application/vnd.x+json;json-header-size={value}"})
        assert caught.value.message == text
