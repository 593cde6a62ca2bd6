"""Older flags of tritonserver's for traces: each stands for a setting of `trace_config`, which wins over it."""

from collections.abc import Mapping, Sequence

from configs.options import Option

_SETTINGS = {
    "trace_file": "triton,file",
    "trace_level": "level",
    "trace_rate": "rate",
    "trace_count": "count",
    "trace_log_frequency": "triton,log-frequency",
}

TRACE_FLAGS = tuple(
    Option(
        name,
        int if name.endswith(("rate", "count", "frequency")) else str,
        f"Older form of --trace-config={setting}=VALUE.",
        "Trace",
        repeated=name == "trace_level",
        form="VALUE",
    )
    for name, setting in _SETTINGS.items()
)


def as_trace_config(given: Mapping[str, Sequence[object]], trace_config: Sequence[str]) -> tuple[str, ...]:
    """`trace_config` with what older flags say of settings that it leaves open; `given` are their values by name."""
    settled = {text.partition("=")[0] for text in trace_config}
    older = [
        f"{setting}={value}"
        for name, setting in _SETTINGS.items()
        if setting not in settled
        for value in given.get(name, ())
        if value != ""
    ]
    return (*older, *trace_config)
