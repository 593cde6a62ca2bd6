"""The metric families of the metrics page, made from the core's state. Pure; names and labels are Triton's."""

import re
from collections.abc import Callable, Iterable
from typing import Any

from broker import cache_metrics
from broker.latencies import Latencies, Sample
from broker.models import Instance, InstanceState, Model, Version, VersionState
from configs.metrics_config import MetricsConfig

_COUNTERS: tuple[tuple[str, str, Callable[[Version], float]], ...] = (
    (
        "nv_inference_request_success",
        "Number of successful inference requests, all batch sizes",
        lambda v: v.statistics.success.count,
    ),
    (
        "nv_inference_count",
        "Number of inferences performed (does not include cached requests)",
        lambda v: v.statistics.inference_count,
    ),
    (
        "nv_inference_exec_count",
        "Number of model executions performed (does not include cached requests)",
        lambda v: v.statistics.execution_count,
    ),
    (
        "nv_inference_request_duration_us",
        "Cumulative inference request duration in microseconds",
        lambda v: v.statistics.success.us,
    ),
    (
        "nv_inference_queue_duration_us",
        "Cumulative inference queuing duration in microseconds",
        lambda v: v.statistics.queue.us,
    ),
    (
        "nv_inference_compute_input_duration_us",
        "Cumulative compute input duration in microseconds",
        lambda v: v.statistics.compute_input.us,
    ),
    (
        "nv_inference_compute_infer_duration_us",
        "Cumulative compute inference duration in microseconds",
        lambda v: v.statistics.compute_infer.us,
    ),
    (
        "nv_inference_compute_output_duration_us",
        "Cumulative inference compute output duration in microseconds",
        lambda v: v.statistics.compute_output.us,
    ),
)


_NO_LABEL = re.compile(r"[^a-zA-Z0-9_]")  # what the name of a label cannot have

_SYSTEM = {
    "nv_cpu_utilization": "CPU utilization rate [0.0 - 1.0]",
    "nv_cpu_memory_total_bytes": "CPU total memory (RAM), in bytes",
    "nv_cpu_memory_used_bytes": "CPU used memory (RAM), in bytes",
    "nv_gpu_utilization": "GPU utilization rate [0.0 - 1.0)",
    "nv_gpu_memory_total_bytes": "GPU total memory, in bytes",
    "nv_gpu_memory_used_bytes": "GPU used memory, in bytes",
    "nv_gpu_power_usage": "GPU power usage in watts",
    "nv_gpu_power_limit": "GPU power management limit in watts",
    "nv_energy_consumption": "GPU energy consumption in joules since the server started",
}


def families(
    models: dict[str, Model], memory: dict[int, int], system: dict[str, Any], config: MetricsConfig, now: float
) -> list[dict[str, Any]]:
    """All families; `memory` is the proportional set size by process id in bytes, `system` as in MemorySampled."""
    versions = [v for _, model in sorted(models.items()) for _, v in sorted(model.versions.items())]
    served = [v for v in versions if v.state is VersionState.READY or v.statistics.execution_count]
    for version in served:
        version.statistics.settle()
    counters = [one for one in _COUNTERS if config.counter_latencies or not one[0].endswith("_us")]
    found = [
        _family(name, "counter", text, [(_labels(v), read(v), "") for v in served]) for name, text, read in counters
    ]
    found.insert(1, _failures(served))
    found += cache_metrics.by_model(served, _labels, config.counter_latencies)
    found.append(
        _family(
            "nv_inference_pending_request_count",
            "gauge",
            "Instantaneous number of pending requests awaiting execution",
            [(_labels(v), len(v.scheduler), "") for v in served],
        )
    )
    found.append(
        _family(
            "nv_model_load_duration_secs",
            "gauge",
            "Seconds that the model took to load",
            [(_labels(v), v.load_seconds, "") for v in served],
        )
    )
    return found + _distributions(served, config, now) + _system(system) + _instances(versions, memory)


def _distributions(versions: list[Version], config: MetricsConfig, now: float) -> list[dict[str, Any]]:
    """Histograms of latencies, beyond Triton always on; Triton's own histogram and summaries when asked for."""
    kept = [(_labels(v), v.statistics.latencies) for v in versions]
    executed = [(_labels(v), v.statistics.latencies) for v in versions if not v.is_cached]
    found = [
        _family(
            f"tidepool_{name}_duration_seconds",
            "histogram",
            text,
            [sample for labels, latencies in kept for sample in getattr(latencies, name).samples(labels)],
        )
        for name, text in (
            ("request", "Duration of successful requests from their arrival to their answer"),
            ("queue", "Time that successful requests waited for their execution"),
            ("compute", "Duration of the execution of successful requests"),
        )
    ]
    first = [(labels, one.first_response) for labels, one in kept if one.first_response is not None]
    found.append(
        _family(
            "nv_inference_first_response_histogram_ms",
            "histogram",
            "Duration from request to first response in milliseconds",
            [sample for labels, histogram in first for sample in histogram.samples(labels)],
        )
    )
    for name in Latencies.SUMMARIES:
        samples = [
            sample
            for labels, one in (executed if name == "request" else kept)  # as in Triton
            if name in one.summaries
            for sample in one.summaries[name].samples(labels, config.summary_quantiles, now)
        ]
        text = f"Summary of {name.replace('_', ' ')} durations in microseconds (includes cached requests)"
        found.append(_family(f"nv_inference_{name}_summary_us", "summary", text, samples))
    return found + cache_metrics.summaries(versions, _labels, config.summary_quantiles, now)


def _system(system: dict[str, Any]) -> list[dict[str, Any]]:
    """Gauges of the machine, as sampled by the repository process."""
    return [
        _family(name, "counter" if name == "nv_energy_consumption" else "gauge", text, _rows(system.get(name)))
        for name, text in _SYSTEM.items()
    ]


def _rows(values: Any) -> list[Sample]:
    if values is None:
        return []
    if isinstance(values, dict):
        return [({"gpu_uuid": uuid}, value, "") for uuid, value in sorted(values.items())]
    return [({}, values, "")]


def _failures(versions: Iterable[Version]) -> dict[str, Any]:
    samples = [
        ({**_labels(v), "reason": reason}, float(count), "")
        for v in versions
        for reason, count in v.statistics.failures.items()
    ]
    return _family(
        "nv_inference_request_failure", "counter", "Number of failed inference requests, all batch sizes", samples
    )


def _instances(versions: Iterable[Version], memory: dict[int, int]) -> list[dict[str, Any]]:
    """Beyond Triton: each instance is a process, with its own memory, readiness and restarts."""
    ready: list[Sample] = []
    resident: list[Sample] = []
    restarts: list[Sample] = []
    used: list[Sample] = []
    mapped: list[Sample] = []
    for version in versions:
        for instance in _distinct(version.instances):
            labels = {**_labels(version), "instance": instance.key, "device": instance.spec.device or "cpu"}
            ready.append((labels, float(instance.state is InstanceState.READY), ""))
            if instance.pid in memory:
                resident.append((labels, float(memory[instance.pid]), ""))
            restarts += [({**labels, "cause": cause}, float(n), "") for cause, n in instance.restarts.items()]
            used.append((labels, float(instance.shm_used), ""))
            mapped.append((labels, float(instance.shm_mapped), ""))
    return [
        _family("tidepool_instance_ready", "gauge", "Whether the instance's process is ready (1) or not (0)", ready),
        _family("tidepool_instance_memory_bytes", "gauge", "Proportional set size of the instance's process", resident),
        _family("tidepool_instance_restarts", "counter", "Restarts of the instance's process by cause", restarts),
        _family("tidepool_instance_shm_used_bytes", "gauge", "Bytes in output blocks that are out", used),
        _family("tidepool_instance_shm_mapped_bytes", "gauge", "Bytes mapped (reserved or not) for outputs", mapped),
    ]


def _distinct(instances: list[Instance]) -> list[Instance]:
    """One for each name and device: an instance that drains gives way to the one that has its name now."""
    ranked = sorted(instances, key=lambda i: (i.state is InstanceState.READY, i.state is not InstanceState.DRAINING))
    return list({(instance.key, instance.spec.device): instance for instance in ranked}.values())


def _labels(version: Version) -> dict[str, str]:
    """The model, and the `metric_tags` of its configuration with `_` before their names."""
    tags = version.description.config.get("metric_tags", {})
    return {
        "model": version.model,
        "version": str(version.number),
        **{f"_{_NO_LABEL.sub('_', tag)}": text for tag, text in tags.items()},
    }


def _family(name: str, kind: str, text: str, samples: list[Sample]) -> dict[str, Any]:
    return {"name": name, "type": kind, "help": text, "samples": samples}
