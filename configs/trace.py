"""`trace_config`: what is traced from the start, and where traces go."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

LEVELS = ("OFF", "TIMESTAMPS", "TENSORS")
MODES = ("triton", "opentelemetry")
_OLD_LEVELS = {"MIN": "TIMESTAMPS", "MAX": "TIMESTAMPS", "TRUE": "TIMESTAMPS", "FALSE": "OFF"}
_DEFAULT_URL = "http://localhost:4318/v1/traces"


@dataclass(frozen=True)
class TraceConfig:
    """Settings at the start. `count` -1 is without end; `log_frequency` 0 writes one file at the end.

    To a collector go `max_batch` traces at once, or what has come within `delay_ms`; of those that wait for it,
    `max_queue` are kept.
    """

    levels: tuple[str, ...] = ("OFF",)
    rate: int = 1000
    count: int = -1
    mode: str = "triton"
    file: str = ""
    log_frequency: int = 0
    url: str = _DEFAULT_URL
    resource: Mapping[str, str] = field(default_factory=dict)
    max_queue: int = 2048
    delay_ms: int = 5000
    max_batch: int = 512


def parse(settings: Iterable[str]) -> TraceConfig:
    """Read `<setting>=<value>` and `<mode>,<setting>=<value>`, each any number of times. Raises ValueError."""
    values: dict[str, str] = {}
    resource: dict[str, str] = {}
    levels: list[str] = []
    for text in settings:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"'{text}': write <setting>=<value> or <mode>,<setting>=<value>")
        if name == "opentelemetry,resource":
            attribute, equals, content = value.partition("=")
            if not equals or not attribute:
                raise ValueError(f"'{text}': write opentelemetry,resource=<key>=<value>")
            resource[attribute] = content
        elif name == "level":
            levels.append(_one_of("level", _OLD_LEVELS.get(value.upper(), value.upper()), LEVELS))
        elif name in _NAMES:
            values[_NAMES[name]] = value
        else:
            known = ", ".join(("level", *_NAMES, "opentelemetry,resource"))
            raise ValueError(f"'{text}': unknown trace setting '{name}', there are: {known}")
    config = TraceConfig(
        levels=chosen(levels),
        mode=_one_of("mode", values.get("mode", "triton"), MODES),
        file=values.get("file", ""),
        url=values.get("url", _DEFAULT_URL),
        resource=resource,
        **{field: _integer(field, values[field], low) for field, low in _LEAST.items() if field in values},
    )
    if not config.url.startswith(("http://", "https://")):
        raise ValueError(f"the collector's url must begin with http:// or https://, not '{config.url}'")
    if config.levels != ("OFF",) and config.mode == "triton" and not config.file:
        raise ValueError("tracing in mode triton needs a file: --trace-config triton,file=PATH")
    return config


def chosen(levels: Collection[str]) -> tuple[str, ...]:
    """The known ones of these levels that trace something, else OFF."""
    return tuple(level for level in LEVELS if level in levels and level != "OFF") or ("OFF",)


_NAMES = {
    "rate": "rate",
    "count": "count",
    "mode": "mode",
    "triton,file": "file",
    "triton,log-frequency": "log_frequency",
    "opentelemetry,url": "url",
    "opentelemetry,bsp_max_queue_size": "max_queue",
    "opentelemetry,bsp_schedule_delay": "delay_ms",
    "opentelemetry,bsp_max_export_batch_size": "max_batch",
}
"""The field that each setting fills."""
_LEAST = {"rate": 1, "count": -1, "log_frequency": 0, "max_queue": 1, "delay_ms": 0, "max_batch": 1}
"""Fields that are integers, and the least that they may be."""


def _one_of(name: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise ValueError(f"invalid value for trace {name} option: {value}, there are: {', '.join(known)}")
    return value


def _integer(name: str, value: str, low: int) -> int:
    option = next(option for option, field in _NAMES.items() if field == name)
    try:
        number = int(value)
    except ValueError:
        number = low - 1
    if not low <= number < 2**31:
        raise ValueError(f"invalid value for trace {option} option: {value}, must be an integer of {low} or more")
    return number
