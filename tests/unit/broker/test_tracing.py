"""Trace settings and their errors, which requests are sampled, and what a trace holds."""

import re
from typing import Any

import pytest

from broker.messages import ErrorCode, UpdateTraceSettings
from broker.models import Version
from broker.request import Request
from broker.tracing import SPANS, Tracing, finish
from broker.validation import Rejected
from configs.trace import TraceConfig
from tests.unit.broker.describe import description, infer

FILE = TraceConfig(levels=("TIMESTAMPS",), rate=1, file="/tmp/trace.json")
OTEL = TraceConfig(levels=("TIMESTAMPS",), rate=1, mode="opentelemetry", resource={"a": "b"})
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"
MODELS = {"m": None, "n": None}


def update(tracing: Tracing, model: str = "", **settings: Any) -> dict[str, list[str]]:
    return tracing.update(UpdateTraceSettings(1, model, settings), MODELS)


def sampled(tracing: Tracing, count: int, model: str = "m") -> list[int]:
    """The places of the requests that are traced."""
    return [i for i in range(1, count + 1) if tracing.begin(model, "") is not None]


# ----------------------------------------------------------------------------------------------- settings


def test_settings_are_shown_as_the_protocols_have_them() -> None:
    assert update(Tracing(TraceConfig(), 1)) == {
        "trace_level": ["OFF"],
        "trace_rate": ["1000"],
        "trace_count": ["-1"],
        "log_frequency": ["0"],
        "trace_file": [""],
        "trace_mode": ["triton"],
    }


def test_opentelemetry_has_settings_of_its_own() -> None:
    assert update(Tracing(OTEL, 1)) == {
        "trace_level": ["TIMESTAMPS"],
        "trace_rate": ["1"],
        "trace_count": ["-1"],
        "url": ["http://localhost:4318/v1/traces"],
        "bsp_max_queue_size": ["2048"],
        "bsp_schedule_delay": ["5000"],
        "bsp_max_export_batch_size": ["512"],
        "resource": ["a=b"],
        "trace_mode": ["opentelemetry"],
    }


def test_a_model_follows_the_server_where_it_has_no_setting_of_its_own() -> None:
    tracing = Tracing(FILE, 1)
    update(tracing, "m", trace_rate=["5"])
    update(tracing, trace_rate=["7"], trace_count=["3"])
    assert tracing.settings("m")["trace_rate"] == ["5"]
    assert tracing.settings("m")["trace_count"] == ["3"]
    assert tracing.settings("n")["trace_rate"] == ["7"]


@pytest.mark.parametrize("nothing", [None, []])
def test_a_setting_that_is_taken_back_falls_to_the_server_and_to_the_start(nothing: Any) -> None:
    tracing = Tracing(FILE, 1)
    update(tracing, trace_rate=["7"])
    update(tracing, "m", trace_rate=["5"])
    assert update(tracing, "m", trace_rate=nothing)["trace_rate"] == ["7"]
    assert update(tracing, trace_rate=nothing)["trace_rate"] == ["1"]


def test_unknown_settings_and_levels_are_ignored() -> None:
    tracing = Tracing(FILE, 1)
    assert update(tracing, colour=["blue"], trace_level=["FOO"])["trace_level"] == ["OFF"]
    assert update(tracing, trace_level=["TENSORS", "TIMESTAMPS"])["trace_level"] == ["TIMESTAMPS", "TENSORS"]
    assert update(tracing, trace_level=["FOO", "TIMESTAMPS"])["trace_level"] == ["TIMESTAMPS"]


@pytest.mark.parametrize(
    ("name", "value", "error", "code"),
    [
        ("trace_level", ["OFF", "TIMESTAMPS"], "Expect only one trace level 'OFF' is specified", ErrorCode.INVALID_ARG),
        ("trace_rate", ["abc"], "Unable to parse 'trace_rate', got: abc", ErrorCode.INVALID_ARG),
        ("trace_rate", ["1", "2"], "expect only 1 value for 'trace_rate'", ErrorCode.INVALID_ARG),
        (
            "trace_rate",
            ["4294967296"],
            "Unable to parse 'trace_rate', value is out of range [ 0, 4294967295 ], got: 4294967296",
            ErrorCode.INVALID_ARG,
        ),
        (
            "trace_rate",
            ["0"],
            "Attempting to set invalid trace setting :sample rate must be non-zero",
            ErrorCode.INVALID_ARG,
        ),
        (
            "trace_count",
            ["-2"],
            "Unable to parse 'trace_count'. Expecting value >= -1, got:-2",
            ErrorCode.INVALID_ARG,
        ),
        ("trace_count", ["2147483648"], "'trace_count', value is out of range", ErrorCode.INVALID_ARG),
        ("log_frequency", ["x"], "Unable to parse 'log_frequency', got: x", ErrorCode.INVALID_ARG),
        ("log_frequency", ["-1"], "'log_frequency', value is out of range", ErrorCode.INVALID_ARG),
        (
            "trace_file",
            ["/etc/passwd"],
            "trace file location can not be updated through network protocol",
            ErrorCode.UNSUPPORTED,
        ),
    ],
)
def test_what_is_wrong_is_said_and_nothing_changes(name: str, value: list[str], error: str, code: ErrorCode) -> None:
    tracing = Tracing(FILE, 1)
    before = tracing.settings("")
    with pytest.raises(Rejected, match=re.escape(error)) as refused:
        update(tracing, **{"trace_count": ["4"], name: value})
    assert refused.value.code == code
    assert tracing.settings("") == before


def test_tracing_to_a_file_needs_one() -> None:
    error = "Attempting to set invalid trace setting :trace file name is not given"
    with pytest.raises(Rejected, match=re.escape(error)):
        update(Tracing(TraceConfig(), 1), trace_level=["TIMESTAMPS"])


def test_an_unknown_model_has_no_settings() -> None:
    with pytest.raises(Rejected, match="Request for unknown model : nope"):
        update(Tracing(FILE, 1), "nope")


# ----------------------------------------------------------------------------------------------- sampling


def test_one_request_in_trace_rate_is_traced_until_trace_count() -> None:
    tracing = Tracing(FILE, 1)
    update(tracing, trace_rate=["3"], trace_count=["2"])
    assert sampled(tracing, 20) == [3, 6]
    update(tracing, trace_count=["1"])
    assert len(sampled(tracing, 20)) == 1


def test_the_last_trace_that_is_allowed_says_so() -> None:
    tracing = Tracing(FILE, 1)
    update(tracing, trace_count=["2"])
    records = [tracing.begin("m", "") for _ in range(3)]
    assert [record and record["is_last"] for record in records] == [False, True, None]


def test_a_model_with_settings_of_its_own_is_counted_apart() -> None:
    tracing = Tracing(FILE, 1)
    update(tracing, trace_rate=["2"])
    update(tracing, "n", trace_rate=["1"], trace_count=["1"])
    assert sampled(tracing, 4, "n") == [1]
    assert sampled(tracing, 4, "m") == [2, 4]


def test_only_a_count_that_is_given_begins_anew() -> None:
    tracing = Tracing(FILE, 1)
    update(tracing, trace_count=["1"])
    update(tracing, "n", trace_count=["1"])
    assert (sampled(tracing, 3, "m"), sampled(tracing, 3, "n")) == ([1], [1])
    update(tracing, log_frequency=["5"])
    assert (sampled(tracing, 3, "m"), sampled(tracing, 3, "n")) == ([], [])
    update(tracing, trace_count=["2"])
    assert (sampled(tracing, 3, "m"), sampled(tracing, 3, "n")) == ([1, 2], [])


def test_a_model_can_be_traced_alone() -> None:
    tracing = Tracing(TraceConfig(file="t"), 1)
    update(tracing, "n", trace_level=["TIMESTAMPS"], trace_rate=["1"])
    assert sampled(tracing, 2, "m") == []
    assert sampled(tracing, 2, "n") == [1, 2]


def test_the_context_of_a_client_is_continued_whatever_the_rate() -> None:
    tracing = Tracing(TraceConfig(levels=("TIMESTAMPS",), rate=1000, count=0, mode="opentelemetry"), 1)
    assert tracing.begin("m", "") is None
    record = tracing.begin("m", PARENT)
    assert record is not None
    assert (record["trace"], record["parent_span"]) == (TRACE, SPAN)
    assert list(record["spans"]) == list(SPANS)
    assert len(set(record["spans"].values())) == len(SPANS)
    context = {"traceparent": f"00-{TRACE}-{record['spans']['model']}-01", "tracestate": "a=1"}
    assert tracing.context(record, "a=1") == context


def test_a_step_belongs_to_the_trace_of_its_ensemble() -> None:
    for mode, file in (("triton", "t"), ("opentelemetry", "")):
        tracing = Tracing(TraceConfig(mode=mode, file=file, levels=("TIMESTAMPS", "TENSORS"), rate=1), seed=1)
        parent = tracing.begin("e", "")
        assert parent is not None
        step = tracing.begin_step(parent)
        assert step["levels"] == parent["levels"] == ["TIMESTAMPS", "TENSORS"]
        assert ("tensors" in step) is (mode == "triton")
        assert (step["id"], step["parent_id"], step["is_last"]) == (2, 1, False)
        if mode == "opentelemetry":
            assert step["trace"] == parent["trace"]
            assert step["parent_span"] == parent["spans"]["model"]
            assert step["spans"].keys() == parent["spans"].keys()
            assert not set(step["spans"].values()) & set(parent["spans"].values())


def test_a_later_version_of_the_header_may_say_more() -> None:
    record = Tracing(OTEL, 1).begin("m", f"01-{TRACE}-{SPAN}-01-more")
    assert record is not None
    assert record["trace"] == TRACE


@pytest.mark.parametrize(
    "header",
    [
        "nonsense",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f'00-{"x" * 30}"}}-{SPAN}-01',
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-01\n",
    ],
)
def test_a_malformed_context_is_none(header: str) -> None:
    tracing = Tracing(OTEL, 1)
    record = tracing.begin("m", header)
    assert record is not None
    assert record["parent_span"] == ""
    assert re.fullmatch("[0-9a-f]{32}", record["trace"])
    assert record["trace"] != TRACE
    assert "tracestate" not in tracing.context(record, "a=1"), "the state of a trace that is not continued"


def test_a_context_counts_for_nothing_in_trace_files_and_when_off() -> None:
    tracing = Tracing(TraceConfig(levels=("TIMESTAMPS",), rate=2, file="t"), 1)
    assert tracing.begin("m", PARENT) is None
    record = tracing.begin("m", PARENT)
    assert record == {"id": 1, "is_last": False, "levels": ["TIMESTAMPS"]}
    assert tracing.context(record, "") == {}
    assert Tracing(TraceConfig(mode="opentelemetry"), 1).begin("m", PARENT) is None


# ----------------------------------------------------------------------------------------------- records


def request(peer: str, caller: object = None) -> Request:
    message = infer(1, received=9.0, request_id="mine")
    version = Version.create(description("m"), 1)
    request = Request(peer, message, version, message.inputs, 1, 10.0, caller=caller)
    request.times, request.ended = (11 * 10**9, 12 * 10**9, 13 * 10**9, 14 * 10**9), 15.0
    return request


@pytest.mark.parametrize(("peer", "receive"), [("h3", "HTTP_RECV"), ("g3", "GRPC_WAITREAD")])
def test_a_record_has_every_time_stamp_in_order(peer: str, receive: str) -> None:
    record = finish({"id": 5}, request(peer), "", 1e9)
    assert record["timestamps"] == [
        (f"{receive}_START", 9 * 10**9),
        (f"{receive}_END", 10 * 10**9),
        ("REQUEST_START", 10 * 10**9),
        ("QUEUE_START", 10 * 10**9),
        ("COMPUTE_START", 11 * 10**9),
        ("COMPUTE_INPUT_END", 12 * 10**9),
        ("COMPUTE_OUTPUT_START", 13 * 10**9),
        ("COMPUTE_END", 14 * 10**9),
        ("INFER_RESPONSE_COMPLETE", 15 * 10**9),
        ("REQUEST_END", 15 * 10**9),
    ]
    assert (record["id"], record["model_name"], record["model_version"], record["request_id"]) == (5, "m", 1, "mine")
    assert record["epoch_offset_ns"] == 10**18


def test_what_was_never_executed_has_no_computation() -> None:
    rejected = request("h1")
    rejected.times = (0, 0, 0, 0)
    names = [name for name, _ in finish({"id": 1}, rejected, "too late", 0.0)["timestamps"]]
    assert names[2:] == ["REQUEST_START", "QUEUE_START", "INFER_RESPONSE_COMPLETE", "REQUEST_END"]


def test_no_frontend_has_received_what_a_model_asks_of_another() -> None:
    names = [name for name, _ in finish({"id": 1}, request("w1", caller=object()), "", 0.0)["timestamps"]]
    assert names[0] == "REQUEST_START"
