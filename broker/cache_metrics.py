"""The metric families of the response cache. Pure; names and labels are Triton's."""

from collections.abc import Callable, Sequence
from typing import Any

from broker.latencies import Sample
from broker.models import Version
from broker.response_cache import ResponseCache

Family = dict[str, Any]

_BY_MODEL: tuple[tuple[str, str, Callable[[Version], float]], ...] = (
    ("num_hits", "Number of cache hits per model", lambda v: v.statistics.cache_hit.count),
    ("hit_duration", "Total cache hit duration per model, in microseconds", lambda v: v.statistics.cache_hit.us),
    ("num_misses", "Number of cache misses per model", lambda v: v.statistics.cache_miss.count),
    (
        "miss_duration",
        "Total cache miss (insert+lookup) duration per model, in microseconds",
        lambda v: v.statistics.cache_miss.us,
    ),
)
_OF_THE_CACHE: tuple[tuple[str, str, Callable[[ResponseCache], float]], ...] = (
    ("util", "Cache utilization [0.0 - 1.0]", lambda c: c.used / c.byte_size),
    ("num_entries", "Number of responses stored in response cache", len),
    ("num_hits", "Number of cache hits in response cache", lambda c: c.hits),
    ("num_misses", "Number of cache misses in response cache", lambda c: c.misses),
    ("num_lookups", "Number of cache lookups in response cache", lambda c: c.hits + c.misses),
    ("num_evictions", "Number of cache evictions in response cache", lambda c: c.evictions),
    (
        "lookup_duration",
        "Total cache lookup duration (hit and miss), in microseconds",
        lambda c: c.lookup_ns // 1000,
    ),
    ("insertion_duration", "Total cache insertion duration, in microseconds", lambda c: c.insertion_ns // 1000),
)


def by_model(served: Sequence[Version], label: Callable[[Version], dict[str, str]], counts_us: bool) -> list[Family]:
    """Counters of the models whose responses may be cached; durations where `counts_us`."""
    cached = [version for version in served if version.is_cached]
    return [
        _family(f"nv_cache_{name}_per_model", "counter", text, [(label(v), read(v), "") for v in cached])
        for name, text, read in _BY_MODEL
        if counts_us or not name.endswith("_duration")
    ]


def summaries(
    served: Sequence[Version], label: Callable[[Version], dict[str, str]], quantiles: Sequence[float], now: float
) -> list[Family]:
    """Summaries of lookups, of the models that have some."""
    return [
        _family(
            f"nv_cache_{kind}_summary_per_model",
            "summary",
            f"Summary of cache {kind} counts/durations per model, in microseconds.",
            [
                sample
                for version in served
                if version.is_cached and version.statistics.latencies.cache_summaries
                for sample in version.statistics.latencies.cache_summaries[kind].samples(label(version), quantiles, now)
            ],
        )
        for kind in ("hit", "miss")
    ]


def of_the_cache(cache: ResponseCache | None) -> list[Family]:
    """Gauges of the cache itself, if there is one."""
    if cache is None:
        return []
    return [_family(f"nv_cache_{name}", "gauge", text, [({}, read(cache), "")]) for name, text, read in _OF_THE_CACHE]


def _family(name: str, kind: str, text: str, samples: list[Sample]) -> Family:
    return {"name": name, "type": kind, "help": text, "samples": samples}
