"""How requests are framed on a connection."""

from tests.golden.build import body_of, get, infer_path, one, post, request, tensor
from tests.golden.scenario import Http, Scenario

_IN = {"inputs": [tensor("IN", "INT32", [1, 2], [1, 2])]}
_BODY = body_of(_IN)
_BINARY = body_of({"inputs": [tensor("IN", "INT32", [1, 1], binary_data_size=4)]})
_PATH = infer_path("matrix")
_LIVE = request("GET", "/v2/health/live")


def chunked(*chunks: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    """A body in chunks."""
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + end


def framed(body: bytes, *headers: str, version: str = "1.1") -> Http:
    """An inference request whose body is framed by `headers`."""
    return Http((request("POST", _PATH, body, *headers, version=version),))


SCENARIOS: list[Scenario] = [
    one("keep_alive", Http((_LIVE, _LIVE, request("POST", _PATH, _IN), _LIVE))),
    one(
        "keep_alive_after_errors",
        Http(
            (
                request("POST", _PATH, "{"),
                request("GET", "/nothing"),
                request("PUT", "/v2"),
                request("GET", "/v2/models/nope"),
                _LIVE,
            )
        ),
    ),
    one(
        "keep_alive_after_error_with_body",
        Http(
            (
                request("POST", infer_path("nope"), _IN),
                request("POST", "/nothing", _IN),
                request("DELETE", _PATH, _IN),
                _LIVE,
            )
        ),
    ),
    one("close", Http((request("GET", "/v2/health/live", b"", "Connection: close"), _LIVE))),
    one("http_1_0", Http((request("GET", "/v2/health/live", version="1.0"), _LIVE))),
    one(
        "http_1_0_keep_alive",
        Http((request("GET", "/v2/health/live", b"", "Connection: keep-alive", version="1.0"), _LIVE)),
    ),
    one("http_1_0_infer", Http((request("POST", _PATH, _IN, version="1.0"),))),
    one("pipelined", Http((_LIVE + _LIVE, b""))),
    one("without_host", Http((b"GET /v2/health/live HTTP/1.1\r\n\r\n",))),
    one("absolute_target", Http((b"GET http://localhost/v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n",))),
    one("chunked", framed(chunked(_BODY[:10], _BODY[10:]), "Transfer-Encoding: chunked")),
    one(
        "chunked_one_by_one",
        framed(chunked(*[_BODY[i : i + 1] for i in range(len(_BODY))]), "Transfer-Encoding: chunked"),
    ),
    one(
        "chunked_binary",
        framed(
            chunked(_BINARY, b"\1\0", b"\0\0"),
            "Transfer-Encoding: chunked",
            f"Inference-Header-Content-Length: {len(_BINARY)}",
        ),
    ),
    one(
        "chunk_extension",
        framed(b"%x;name=value\r\n%b\r\n0\r\n\r\n" % (len(_BODY), _BODY), "Transfer-Encoding: chunked"),
    ),
    one("chunked_trailer", framed(chunked(_BODY, end=b"0\r\nX-Trailer: 1\r\n\r\n"), "Transfer-Encoding: chunked")),
    one("chunked_nothing", framed(chunked(), "Transfer-Encoding: chunked")),
    one(
        "expect_continue",
        Http((request("POST", _PATH, b"", "Expect: 100-continue", f"Content-Length: {len(_BODY)}") + _BODY,)),
    ),
    one(
        "upper_case_headers",
        Http((request("POST", _PATH, b"", f"CONTENT-LENGTH: {len(_BODY)}", "X-OTHER: 1") + _BODY,)),
    ),
    one(
        "no_space_after_colon",
        Http((b"POST %b HTTP/1.1\r\nHost:x\r\nContent-Length:%d\r\n\r\n%b" % (_PATH.encode(), len(_BODY), _BODY),)),
    ),
    one("post_without_framing", Http((b"POST %b HTTP/1.1\r\nHost: x\r\n\r\n" % _PATH.encode(),))),
    one("get_with_body", Http((request("GET", "/v2/health/live", b"hello"), _LIVE))),
    one("length_not_a_number", framed(_BODY, "Content-Length: abc")),
    one("garbage", Http((b"hello world\r\n\r\n",))),
    one("garbage_method", Http((b"\x16\x03\x01\x02\x00\x01\r\n\r\n",))),
    one("no_version", Http((b"GET /v2/health/live\r\n\r\n",))),
    one("very_long_header", Http((request("GET", "/v2/health/live", b"", "X-Long: " + "x" * 4000),))),
    one("post_ready", post("/v2/health/ready")),
    one("metrics_page_unknown", Http((request("GET", "/nothing"),), port="metrics")),
    one("metrics_page_post", Http((request("POST", "/metrics"),), port="metrics")),
    one("live_again", get("/v2/health/live")),
]
