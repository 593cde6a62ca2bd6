"""Which requests take the short way, by their heads alone."""

import pytest

from frontends.http.fast import MAX_BODY, Head, read_head

LENGTH = "Inference-Header-Content-Length"


def head(*lines: str, start: str = "POST /v2/models/m/infer HTTP/1.1") -> bytes:
    return "\r\n".join([start, *lines, "", ""]).encode("latin-1")


def test_what_a_plain_head_says() -> None:
    text = head("Host: h", "Content-Type: application/octet-stream", f"{LENGTH}: 20", "content-length: 84")
    assert read_head(text) == Head(len(text), "m", -1, 84, 20)
    versioned = head("Host: h", "Content-Length: 5", start="POST /v2/models/a%20b/versions/7/infer HTTP/1.1")
    assert read_head(versioned) == Head(len(versioned), "a%20b", 7, 5, None)


@pytest.mark.parametrize(
    "lines",
    [
        ["Content-Length: 5"],  # no Host
        ["Host: h"],  # no length
        ["Host: h", "Content-Length: 0"],
        ["Host: h", "Content-Length: +5"],
        ["Host: h", "Content-Length: 5", "Content-Length: 5"],
        ["Host: h", f"Content-Length: {MAX_BODY + 1}"],
        ["Host: h", "Content-Length: 5", f"{LENGTH}: 0"],  # a raw request
        ["Host: h", "Content-Length: 5", f"{LENGTH}: 6"],
        ["Host: h", "Content-Length: 5", f"{LENGTH}: x"],
        ["Host: h", "Content-Length: 5", "Transfer-Encoding: chunked"],
        ["Host: h", "Content-Length: 5", "Content-Encoding: gzip"],
        ["Host: h", "Content-Length: 5", "Accept-Encoding: gzip"],
        ["Host: h", "Content-Length: 5", "Expect: 100-continue"],
        ["Host: h", "Content-Length: 5", "Connection: close"],
        ["Host: h", "Content-Length: 5", "Upgrade: websocket"],
        ["Host: h", "Content-Length: 5", "traceparent: 00-1-2-01"],
        ["Host: h", "Content-Length : 5"],
        ["Host: h", " Content-Length: 5"],  # a folded line
        ["Host: h", "Content-Length: 5", "User-Agent: \x7f"],
        ["Host: h", "Content-Length: 5", "nonsense"],
    ],
)
def test_what_is_not_plain_goes_the_long_way(lines: list[str]) -> None:
    assert read_head(head(*lines)) is None


@pytest.mark.parametrize(
    "start",
    [
        "POST /v2/models/m/infer HTTP/1.0",
        "PUT /v2/models/m/infer HTTP/1.1",
        "POST /v2/models/m/generate HTTP/1.1",
        "POST /v2/models/m/versions/99999999999999999999/infer HTTP/1.1",
        "POST /v2/models/m/infer/ HTTP/1.1",
        "POST  /v2/models/m/infer HTTP/1.1",
        "POST",
    ],
)
def test_only_inference_takes_the_short_way(start: str) -> None:
    assert read_head(head("Host: h", "Content-Length: 5", start=start)) is None
