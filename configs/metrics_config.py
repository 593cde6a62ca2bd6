"""`metrics_config`: which kinds of latency metrics there are."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from configs.errors import nearest

_QUANTILES = "0.5:0.05,0.9:0.01,0.95:0.001,0.99:0.001,0.999:0.001"
_KEYS = ("counter_latencies", "histogram_latencies", "summary_latencies", "summary_quantiles")


@dataclass(frozen=True)
class MetricsConfig:
    """The kinds that are on. `summary_quantiles`: quantile and the error in rank that it may have."""

    counter_latencies: bool = True
    histogram_latencies: bool = False
    summary_latencies: bool = False
    summary_quantiles: tuple[float, ...] = (0.5, 0.9, 0.95, 0.99, 0.999)


def parse(settings: Iterable[str]) -> MetricsConfig:
    """Read `<key>=<value>` settings. Raises ValueError."""
    values = {"counter_latencies": "true", "histogram_latencies": "false", "summary_latencies": "false"}
    values["summary_quantiles"] = _QUANTILES
    for text in settings:
        key, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--metrics-config option format is <setting>=<value>. Got {text}")
        if key not in values:
            raise ValueError(
                f"'{text}': write <key>=<value> with one of {', '.join(_KEYS)}{nearest(key, _KEYS, limit=0)}"
            )
        values[key] = value
    quantiles = []
    for pair in values["summary_quantiles"].split(","):
        quantile, colon, error = pair.partition(":")
        try:
            if not colon or not 0 <= float(quantile) <= 1 or not 0 <= float(error) <= 1:
                raise ValueError
        except ValueError:
            raise ValueError(f"'{pair}': a quantile is written <quantile>:<error>, both from 0 to 1") from None
        quantiles.append(float(quantile))
    return MetricsConfig(
        _switch(values, "counter_latencies"),
        _switch(values, "histogram_latencies"),
        _switch(values, "summary_latencies"),
        tuple(dict.fromkeys(quantiles)),
    )


def buckets(form: Mapping[str, Any]) -> dict[str, tuple[float, ...]]:
    """The boundaries that a model wants for its histograms, by the family's name; `form` is its configuration."""
    controls = form.get("model_metrics", {}).get("metric_control", [])
    return {
        control["metric_identifier"]["family"]: tuple(control["histogram_options"]["buckets"])
        for control in controls
        if "metric_identifier" in control and "histogram_options" in control
    }


def _switch(values: dict[str, str], key: str) -> bool:
    word = values[key].lower()
    if word in {"true", "on", "1"}:
        return True
    if word in {"false", "off", "0"}:
        return False
    raise ValueError(f"{key}: invalid value for bool option: {values[key]}")
