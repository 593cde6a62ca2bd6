"""`trace_config`: what is traced from the start, and where traces go."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

LEVELS = ("OFF", "TIMESTAMPS")
MODES = ("triton", "opentelemetry")
_DEFAULT_URL = "http://localhost:4318/v1/traces"


@dataclass(frozen=True)
class TraceConfig:
    """Settings at the start. `count` -1 is without end; `log_frequency` 0 writes one file at the end."""

    level: str = "OFF"
    rate: int = 1000
    count: int = -1
    mode: str = "triton"
    file: str = ""
    log_frequency: int = 0
    url: str = _DEFAULT_URL
    resource: Mapping[str, str] = field(default_factory=dict)


def parse(settings: Iterable[str]) -> TraceConfig:
    """Read `level=TIMESTAMPS`, `rate=N`, `count=N`, `mode=M`, `triton,file=PATH`, `triton,log-frequency=N`,

    `opentelemetry,url=URL` and `opentelemetry,resource=KEY=VALUE`, each any number of times. Raises ValueError.
    """
    values: dict[str, str] = {}
    resource: dict[str, str] = {}
    for text in settings:
        mode, comma, setting = text.partition(",")
        scope, key_value = (mode, setting) if comma else ("", text)
        key, equals, value = key_value.partition("=")
        if not equals:
            raise ValueError(f"'{text}': write <setting>=<value> or <mode>,<setting>=<value>")
        name = f"{scope},{key}" if scope else key
        if name == "opentelemetry,resource":
            attribute, _, content = value.partition("=")
            resource[attribute] = content
        elif name in _NAMES:
            values[_NAMES[name]] = value
        else:
            raise ValueError(f"'{text}': unknown trace setting '{name}', there are: {', '.join(_NAMES)}")
    config = TraceConfig(
        level=_one_of("level", values.get("level", "OFF").upper(), LEVELS),
        rate=_integer("rate", values.get("rate", "1000"), 1),
        count=_integer("count", values.get("count", "-1"), -1),
        mode=_one_of("mode", values.get("mode", "triton"), MODES),
        file=values.get("file", ""),
        log_frequency=_integer("log-frequency", values.get("log_frequency", "0"), 0),
        url=values.get("url", _DEFAULT_URL),
        resource=resource,
    )
    if config.level != "OFF" and config.mode == "triton" and not config.file:
        raise ValueError("tracing in mode triton needs a file: --trace-config triton,file=PATH")
    return config


_NAMES = {
    "level": "level",
    "rate": "rate",
    "count": "count",
    "mode": "mode",
    "triton,file": "file",
    "triton,log-frequency": "log_frequency",
    "opentelemetry,url": "url",
}


def _one_of(name: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise ValueError(f"invalid value for trace {name} option: {value}, there are: {', '.join(known)}")
    return value


def _integer(name: str, value: str, low: int) -> int:
    try:
        number = int(value)
    except ValueError:
        number = low - 1
    if not low <= number < 2**32:
        raise ValueError(f"invalid value for trace {name} option: {value}, must be an integer of {low} or more")
    return number
