"""The settings of traces: their syntax, their defaults, and what is said about those that are wrong."""

import re

import pytest

from configs.trace import TraceConfig, parse

ON = "level=TIMESTAMPS"


def test_nothing_is_traced_by_default() -> None:
    assert parse(()) == TraceConfig(levels=("OFF",), rate=1000, count=-1, mode="triton", log_frequency=0)


def test_every_setting_has_its_field() -> None:
    config = parse(
        [
            ON,
            "rate=3",
            "count=10",
            "mode=opentelemetry",
            "triton,file=/tmp/t=1.json",
            "triton,log-frequency=5",
            "opentelemetry,url=https://collector/v1/traces",
            "opentelemetry,resource=service.name=mine",
            "opentelemetry,resource=query=a=b",
            "opentelemetry,bsp_max_queue_size=7",
            "opentelemetry,bsp_schedule_delay=100",
            "opentelemetry,bsp_max_export_batch_size=8",
        ]
    )
    resource = {"service.name": "mine", "query": "a=b"}
    assert config == TraceConfig(
        ("TIMESTAMPS",), 3, 10, "opentelemetry", "/tmp/t=1.json", 5, "https://collector/v1/traces", resource, 7, 100, 8
    )


def test_levels_add_up() -> None:
    for given in (["level=TENSORS", ON], [ON, "level=OFF", "level=tensors"]):
        assert parse([*given, "triton,file=/tmp/t"]).levels == ("TIMESTAMPS", "TENSORS")


@pytest.mark.parametrize(
    ("given", "level"), [("timestamps", "TIMESTAMPS"), ("min", "TIMESTAMPS"), ("true", "TIMESTAMPS"), ("off", "OFF")]
)
def test_levels_are_known_by_their_old_names(given: str, level: str) -> None:
    assert parse([f"level={given}", "triton,file=t"]).levels == (level,)


def test_the_last_of_several_values_counts() -> None:
    assert parse(["rate=1", "rate=2"]).rate == 2


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        (["rate"], "'rate': write <setting>=<value> or <mode>,<setting>=<value>"),
        (["speed=1"], "'speed=1': unknown trace setting 'speed', there are: level, rate, count, mode, triton,file"),
        (["file=x"], "unknown trace setting 'file'"),
        (["triton,url=http://x"], "unknown trace setting 'triton,url'"),
        (["opentelemetry,resource=key"], "write opentelemetry,resource=<key>=<value>"),
        (["opentelemetry,resource==value"], "write opentelemetry,resource=<key>=<value>"),
        (["level=ALL"], "invalid value for trace level option: ALL, there are: OFF, TIMESTAMPS, TENSORS"),
        (["mode=jaeger"], "invalid value for trace mode option: jaeger, there are: triton, opentelemetry"),
        (["rate=0"], "invalid value for trace rate option: 0, must be an integer of 1 or more"),
        (["rate=x"], "invalid value for trace rate option: x"),
        (["count=-2"], "invalid value for trace count option: -2, must be an integer of -1 or more"),
        (["triton,log-frequency=-1"], "invalid value for trace triton,log-frequency option: -1"),
        (["rate=4294967296"], "invalid value for trace rate option"),
        (["opentelemetry,bsp_schedule_delay=soon"], "trace opentelemetry,bsp_schedule_delay option: soon"),
        (["opentelemetry,url=file:///etc/passwd"], "url must begin with http:// or https://, not 'file:///etc/passwd'"),
        ([ON], "tracing in mode triton needs a file: --trace-config triton,file=PATH"),
    ],
)
def test_what_is_wrong_is_said(settings: list[str], error: str) -> None:
    with pytest.raises(ValueError, match=re.escape(error)):
        parse(settings)
