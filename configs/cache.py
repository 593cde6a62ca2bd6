"""`cache_config`: which response cache the server has, and how large it may be."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from configs.errors import nearest
from configs.tree import Node

NAMES = ("local", "redis")
TIMEOUT_MS = 500
"""How long Redis is waited for unless the settings say otherwise."""


@dataclass(frozen=True)
class CacheConfig:
    """The server's response cache. `name` is `""` where there is none; `byte_size` is that of `local`.

    `options` are those of `redis`: host, port, db, user, password, and connect_timeout and socket_timeout in
    milliseconds.
    """

    name: str = ""
    byte_size: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)


def parse(settings: Iterable[str], old_byte_size: int = 0) -> CacheConfig:
    """Read `<cache>,<setting>=<value>`, each any number of times; `old_byte_size` is the older way to a `local` one.

    Raises ValueError.
    """
    caches: dict[str, dict[str, str]] = {}
    for text in settings:
        name, comma, rest = text.partition(",")
        key, equals, value = rest.partition("=")
        if not comma or not equals or not name or not key:
            raise ValueError(f"'{text}': write <cache_name>,<setting>=<value>")
        caches.setdefault(name, {})[key] = value
    if old_byte_size and caches:
        raise ValueError(
            "Error: Incompatible flags --response-cache-byte-size and --cache-config both provided. Please provide one "
            "or the other."
        )
    if old_byte_size:
        return CacheConfig("local", old_byte_size)
    if len(caches) > 1:
        raise ValueError("found multiple cache configurations, but only a single cache is currently supported")
    for name, values in caches.items():
        if name not in NAMES:
            raise ValueError(f"unable to find cache '{name}', there are: {', '.join(NAMES)}{nearest(name, NAMES)}")
        return _local(values) if name == "local" else _redis(values)
    return CacheConfig()


def _local(values: dict[str, str]) -> CacheConfig:
    _check("local", values, ("size",))
    try:
        return CacheConfig("local", _integer(values, "size", "", 2**63 - 1))
    except ValueError:
        raise ValueError(
            "Failed to initialize LocalCache: config didn't contain a valid 'size' field (bytes)"
        ) from None


def _redis(values: dict[str, str]) -> CacheConfig:
    numbers = {"port": ("6379", 65535), "db": ("0", 2**31 - 1)}
    numbers |= dict.fromkeys(("connect_timeout", "socket_timeout"), (str(TIMEOUT_MS), 5000))
    _check("redis", values, ("host", "user", "password", *numbers))
    if not values.get("host"):
        raise ValueError("Failed to initialize RedisCache: Must at a minimum specify 'host' for the redis cache")
    options: dict[str, Any] = {name: values.get(name, "") for name in ("host", "user", "password")}
    options |= {name: _integer(values, name, *given) for name, given in numbers.items()}
    if find_spec("redis") is None:
        raise ValueError("the cache 'redis' needs the package 'redis': pip install 'tidepool[redis]'")
    return CacheConfig("redis", 0, options)


def _check(cache: str, values: Iterable[str], known: Sequence[str]) -> None:
    for key in values:
        if key not in known:
            raise ValueError(f"'{key}' is no setting of the cache '{cache}', there are: {', '.join(known)}")


def _integer(values: Mapping[str, str], name: str, default: str, high: int) -> int:
    """A number of at least 1 (`db`: 0)."""
    text = values.get(name, default)
    low = 0 if name == "db" else 1
    if not text.isascii() or not text.isdecimal() or not low <= int(text[:20]) <= high:
        raise ValueError(f"'{name}' must be a number from {low} to {high}, got '{text}'")
    return int(text)


def problems(config: Node, model: str) -> Iterator[str]:
    """Why a model's responses cannot be cached though its configuration asks for it."""
    cache: Node | None = config.get("response_cache")
    if cache is None or not cache.get("enable"):
        return
    policy: Node | None = config.get("model_transaction_policy")
    reasons = []
    if "sequence_batching" in config:
        reasons.append("sequence batching scheduler")
    if policy is not None and policy.get("decoupled"):
        reasons.append("'decoupled' transaction policy")
    for reason in reasons:
        yield (
            f"{cache.at('enable')}: Response Cache does not currently support model {model} with {reason}. Please "
            "disable the response cache."
        )


def hint(config: Node, model: str, cache: CacheConfig) -> Iterator[str]:
    """What a model that asks for the cache is told where there is none, or none for it."""
    node: Node | None = config.get("response_cache")
    if node is None or not node.get("enable"):
        return
    text = f"{node.at('enable')}: 'response_cache' of model '{model}' has no effect here:"
    if "ensemble_scheduling" in config:
        yield f"{text} only the models of an ensemble can have it, for requests of their own"
    elif not cache.name:
        yield f"{text} there is no --cache-config"
