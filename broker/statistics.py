"""Counts and durations of one model version, in the terms of Triton's statistics extension. Pure arithmetic."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from broker.latencies import Latencies

_MANY = 100
"""Answers that are counted together."""
FAILURE_REASONS = ("REJECTED", "CANCELED", "BACKEND", "OTHER")


@dataclass(slots=True)
class Duration:
    """How often something happened and how long it took in all, in nanoseconds."""

    count: int = 0
    ns: int = 0
    us: int = 0  # each occurrence rounded down, as the metrics count

    def add(self, ns: int, times: int = 1) -> None:
        """`times` occurrences of `ns` each."""
        self.count += times
        self.ns += ns * times
        self.us += ns // 1000 * times

    def add_all(self, ns: Sequence[int]) -> None:
        """One occurrence each."""
        self.count += len(ns)
        self.ns += sum(ns)
        self.us += sum([each // 1000 for each in ns])

    def to_json(self) -> dict[str, int]:
        """`{"count", "ns"}`."""
        return {"count": self.count, "ns": self.ns}


@dataclass(slots=True)
class BatchStatistics:
    """Executions of one total batch size."""

    compute_input: Duration = field(default_factory=Duration)
    compute_infer: Duration = field(default_factory=Duration)
    compute_output: Duration = field(default_factory=Duration)


@dataclass(slots=True)
class Statistics:
    """Everything counted for one model version since it was loaded."""

    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    compute_input: Duration = field(default_factory=Duration)
    compute_infer: Duration = field(default_factory=Duration)
    compute_output: Duration = field(default_factory=Duration)
    cache_hit: Duration = field(default_factory=Duration)
    cache_miss: Duration = field(default_factory=Duration)
    inference_count: int = 0
    execution_count: int = 0
    last_inference: int = 0
    batches: dict[int, BatchStatistics] = field(default_factory=dict)
    latencies: Latencies = field(default_factory=Latencies)
    _executions: dict[int, list[tuple[int, int, int, int]]] = field(default_factory=dict)  # by batch size
    _answers: list[tuple[int, int, int, tuple[int, int, int, int], float]] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FAILURE_REASONS, 0))

    def executed(self, batch: int, times: tuple[int, int, int, int], epoch_ms: int) -> None:
        """One batch was executed; `times` as in `messages.Executed`."""
        self.execution_count += 1
        self.last_inference = epoch_ms
        executions = self._executions.get(batch)
        if executions is None:
            executions = self._executions[batch] = []
        executions.append(times)
        if len(executions) >= _MANY:
            self.settle()

    def succeeded(self, batch: int, total_ns: int, queue_ns: int, times: tuple[int, int, int, int], now: float) -> None:
        """One request was answered: it took `total_ns` in all, `queue_ns` of them before its execution began.

        It is counted by `settle`, which is called now and then: that is cheaper than to count one by one.
        """
        self._answers.append((batch, total_ns, queue_ns, times, now))
        if len(self._answers) >= _MANY:
            self.settle()

    def settle(self) -> None:
        """Count all answers and executions. Whoever reads the numbers calls this before."""
        for batch, executions in self._executions.items():
            _add_stages(self.batches.setdefault(batch, BatchStatistics()), executions)
        self._executions.clear()
        if not self._answers:
            return
        batches, totals, queued, times, nows = zip(*self._answers, strict=True)
        self._answers.clear()
        self.inference_count += sum(batches)
        self.success.add_all(totals)
        self.queue.add_all(queued)
        _add_stages(self, times)
        self.latencies.succeeded(totals, queued, times, nows)

    def hit(self, ns: int, now: float) -> None:
        """One request was answered from the cache, `ns` after its arrival."""
        self.success.add(ns)
        self.queue.add(0)
        self.cache_hit.add(ns)
        self.latencies.hit(ns, now)

    def missed(self, ns: int, now: float) -> None:
        """The cache has no answer to a request, which was known `ns` after its arrival."""
        self.cache_miss.add(ns)
        self.latencies.missed(ns, now)

    def inserted(self, ns: int) -> None:
        """The response to a request that was missed is in the cache, which has taken so long."""
        self.cache_miss.ns += ns
        self.cache_miss.us += ns // 1000

    def warmed_up(self, requests: int, times: tuple[int, int, int, int], epoch_ms: int) -> None:
        """A loading instance has executed so many requests that no client sent: they count, as in Triton."""
        self.executed(requests, times, epoch_ms)
        start, input_end, output_start, end = times
        self.inference_count += requests
        self.success.add(end - start, requests)
        self.queue.add(0, requests)
        self.compute_input.add(input_end - start, requests)
        self.compute_infer.add(output_start - input_end, requests)
        self.compute_output.add(end - output_start, requests)

    def failed(self, reason: str, total_ns: int) -> None:
        """One accepted request was answered with an error."""
        self.failures[reason] += 1
        self.fail.add(total_ns)

    def to_json(self, model: str, version: int) -> dict[str, Any]:
        """One element of `model_stats`."""
        self.settle()
        return {
            "name": model,
            "version": str(version),
            "last_inference": self.last_inference,
            "inference_count": self.inference_count,
            "execution_count": self.execution_count,
            "inference_stats": {
                "success": self.success.to_json(),
                "fail": self.fail.to_json(),
                "queue": self.queue.to_json(),
                "compute_input": self.compute_input.to_json(),
                "compute_infer": self.compute_infer.to_json(),
                "compute_output": self.compute_output.to_json(),
                "cache_hit": self.cache_hit.to_json(),
                "cache_miss": self.cache_miss.to_json(),
            },
            "response_stats": {},
            "batch_stats": [
                {
                    "batch_size": size,
                    "compute_input": stats.compute_input.to_json(),
                    "compute_infer": stats.compute_infer.to_json(),
                    "compute_output": stats.compute_output.to_json(),
                }
                for size, stats in sorted(self.batches.items())
            ],
            "memory_usage": [],
        }


def _add_stages(to: BatchStatistics | Statistics, times: Sequence[tuple[int, int, int, int]]) -> None:
    """The stages of executions, or of requests in theirs; `times` as in `messages.Executed`."""
    to.compute_input.add_all([t[1] - t[0] for t in times])
    to.compute_infer.add_all([t[2] - t[1] for t in times])
    to.compute_output.add_all([t[3] - t[2] for t in times])
