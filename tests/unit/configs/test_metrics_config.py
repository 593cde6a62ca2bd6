"""The settings that choose kinds of metrics."""

import pytest

from configs.metrics_config import MetricsConfig, parse


def test_defaults_and_values() -> None:
    assert parse(()) == MetricsConfig()
    chosen = parse(["summary_latencies=true", "histogram_latencies=on", "summary_quantiles=0.5:0.1,0.75:0.05,0.5:0.01"])
    assert chosen == MetricsConfig(True, True, True, (0.5, 0.75))


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("summary_latency=true", "summary_latencies"),
        ("summary_latencies", "--metrics-config option format is <setting>=<value>. Got summary_latencies"),
        ("summary_latencies=maybe", "invalid value for bool option: maybe"),
        ("summary_quantiles=0.5", "a quantile is written <quantile>:<error>"),
        ("summary_quantiles=2:0.1", "both from 0 to 1"),
    ],
)
def test_what_is_wrong_is_said(setting: str, expected: str) -> None:
    with pytest.raises(ValueError, match=expected.replace("<", r"\<")):
        parse([setting])
