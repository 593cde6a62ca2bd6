"""`cache_config`: which response cache the server has, and how large it may be."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from configs.errors import nearest
from configs.tree import Node

NAMES = ("local",)


@dataclass(frozen=True)
class CacheConfig:
    """The server's response cache. `name` is `""` where there is none; `byte_size` is that of `local`."""

    name: str = ""
    byte_size: int = 0


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
        return _local(values)
    return CacheConfig()


def _local(values: dict[str, str]) -> CacheConfig:
    unknown = [key for key in values if key != "size"]
    if unknown:
        raise ValueError(f"'{unknown[0]}' is no setting of the local cache, there is: size")
    size = values.get("size", "")
    if not size.isascii() or not size.isdecimal() or not 0 < int(size[:20]) < 2**63:
        raise ValueError("Failed to initialize LocalCache: config didn't contain a valid 'size' field (bytes)")
    return CacheConfig("local", int(size))


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
    """What a model that asks for the cache is told where there is none."""
    node: Node | None = config.get("response_cache")
    if node is not None and node.get("enable") and not cache.name:
        yield f"{node.at('enable')}: 'response_cache' of model '{model}' has no effect here: there is no --cache-config"
