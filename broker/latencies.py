"""Distributions of durations: histograms with fixed buckets, and quantiles of the last minute. Pure."""

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence

from configs.metrics_config import MetricsConfig

SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the buckets of the latency histograms."""
FIRST_RESPONSE = "nv_inference_first_response_histogram_ms"
FIRST_RESPONSE_MS = (100.0, 500.0, 2000.0, 5000.0)
"""Upper bounds that Triton gives its histogram of first responses."""

_WINDOW_SECONDS = 60.0
_AGES = 5
_STEP = math.log(1.02)  # quantiles are right within 1 %

Sample = tuple[dict[str, str], float, str]
"""Labels, value, and what follows the family's name."""


def _text(number: float) -> str:
    """Different for different numbers: they tell series apart."""
    return repr(number).removesuffix(".0")


class Histogram:
    """Counts by bucket, and the sum."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        """`bounds` are the buckets' upper bounds, ascending; a last one without bound follows."""
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """One more value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def observe_all(self, ns: Iterable[int]) -> None:
        """More values, in nanoseconds."""
        counts, bounds = self._counts, self._bounds
        values = [each / 1e9 for each in ns]
        for value in values:
            counts[bisect_left(bounds, value)] += 1
        self._sum += sum(values)

    def samples(self, labels: dict[str, str]) -> list[Sample]:
        """As Prometheus has it: cumulative buckets, sum, count."""
        found: list[Sample] = []
        total = 0
        for bound, count in zip((*self._bounds, math.inf), self._counts, strict=True):
            total += count
            text = "+Inf" if bound == math.inf else _text(bound)
            found.append(({**labels, "le": text}, total, "_bucket"))
        return [*found, (labels, self._sum, "_sum"), (labels, total, "_count")]


class Summary:
    """Quantiles over a sliding window: five buckets of age, each with counts by logarithm."""

    __slots__ = ("_ages", "_count", "_rotated", "_sum")

    def __init__(self) -> None:
        """Nothing observed."""
        self._ages: list[dict[int, int]] = [{} for _ in range(_AGES)]
        self._rotated = 0.0
        self._count = 0
        self._sum = 0.0

    def observe(self, value: float, now: float) -> None:
        """One more value (not negative) at `now`, in seconds of the monotonic clock."""
        self._rotate(now)
        key = int(math.log(value) / _STEP) if value >= 1 else 0
        newest = self._ages[0]
        newest[key] = newest.get(key, 0) + 1
        self._count += 1
        self._sum += value

    def samples(self, labels: dict[str, str], quantiles: Sequence[float], now: float) -> list[Sample]:
        """Each quantile (NaN when nothing was observed lately), sum and count."""
        self._rotate(now)
        merged: dict[int, int] = {}
        for age in self._ages:
            for key, count in age.items():
                merged[key] = merged.get(key, 0) + count
        found: list[Sample] = [
            ({**labels, "quantile": _text(quantile)}, _quantile(merged, quantile), "") for quantile in quantiles
        ]
        return [*found, (labels, self._sum, "_sum"), (labels, self._count, "_count")]

    def _rotate(self, now: float) -> None:
        step = _WINDOW_SECONDS / _AGES
        while now - self._rotated >= step:
            if now - self._rotated >= _WINDOW_SECONDS:
                self._ages = [{} for _ in range(_AGES)]
                self._rotated = now
                return
            self._ages = [{}, *self._ages[:-1]]
            self._rotated += step


def _quantile(counts: dict[int, int], quantile: float) -> float:
    total = sum(counts.values())
    if not total:
        return math.nan
    rank = max(1, math.ceil(quantile * total))
    for key in sorted(counts):
        rank -= counts[key]
        if rank <= 0:
            return math.exp((key + 0.5) * _STEP)
    return math.nan


class Latencies:
    """The distributions of one model version."""

    SUMMARIES = ("request", "queue", "compute_input", "compute_infer", "compute_output")
    CACHE_SUMMARIES = ("hit", "miss")

    def __init__(self) -> None:
        """All empty; the optional kinds are kept from `configure` on."""
        self.request = Histogram(SECONDS)
        self.queue = Histogram(SECONDS)
        self.compute = Histogram(SECONDS)
        self.first_response: Histogram | None = None
        self.summaries: dict[str, Summary] = {}
        self.cache_summaries: dict[str, Summary] = {}

    def configure(self, config: MetricsConfig, buckets: Mapping[str, Sequence[float]]) -> None:
        """Keep the optional kinds that are on; `buckets` are those of a model's own choice, by the family's name."""
        if config.histogram_latencies:
            self.first_response = Histogram(buckets.get(FIRST_RESPONSE) or FIRST_RESPONSE_MS)
        if config.summary_latencies:
            self.summaries = {name: Summary() for name in self.SUMMARIES}
            self.cache_summaries = {name: Summary() for name in self.CACHE_SUMMARIES}

    def succeeded(
        self,
        total_ns: Sequence[int],
        queue_ns: Sequence[int],
        times: Sequence[tuple[int, int, int, int]],
        nows: Sequence[float],
    ) -> None:
        """Requests were answered; of each the arguments of `Statistics.succeeded`."""
        self.request.observe_all(total_ns)
        self.queue.observe_all(queue_ns)
        self.compute.observe_all([end - start for start, _, _, end in times])
        if not self.summaries:
            return
        for total, queued, (start, input_end, output_start, end), now in zip(
            total_ns, queue_ns, times, nows, strict=True
        ):
            stages = (total, queued, input_end - start, output_start - input_end, end - output_start)
            for summary, ns in zip(self.summaries.values(), stages, strict=True):
                summary.observe(ns / 1e3, now)

    def hit(self, ns: int, now: float) -> None:
        """One request was answered from the cache, `ns` after its arrival."""
        self.request.observe(ns / 1e9)
        self.queue.observe(0)
        self.responded(ns / 1e9)
        if self.cache_summaries:
            self.summaries["queue"].observe(0, now)
            self.cache_summaries["hit"].observe(ns / 1e3, now)

    def missed(self, ns: int, now: float) -> None:
        """The cache had no answer, `ns` after the request's arrival."""
        if self.cache_summaries:
            self.cache_summaries["miss"].observe(ns / 1e3, now)

    def responded(self, seconds: float) -> None:
        """A request has got its first response."""
        if self.first_response is not None:
            self.first_response.observe(seconds * 1e3)
