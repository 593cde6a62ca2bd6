"""The metric families of the metrics page, made from the core's state. Pure; names and labels are Triton's."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from broker import cache_metrics
from broker.latencies import FIRST_RESPONSE, Latencies, Sample
from broker.models import Instance, InstanceState, Model, Version, VersionState
from broker.statistics import Statistics
from configs.description import ModelDescription
from configs.metrics_config import MetricsConfig
from configs.namespaces import bare_name

_COUNTERS: tuple[tuple[str, str, Callable[[Statistics], float]], ...] = (
    (
        "nv_inference_request_success",
        "Number of successful inference requests, all batch sizes",
        lambda s: s.success.count,
    ),
    (
        "nv_inference_count",
        "Number of inferences performed (does not include cached requests)",
        lambda s: s.inference_count,
    ),
    (
        "nv_inference_exec_count",
        "Number of model executions performed (does not include cached requests)",
        lambda s: s.execution_count,
    ),
    (
        "nv_inference_request_duration_us",
        "Cumulative inference request duration in microseconds (includes cached requests)",
        lambda s: s.success.us,
    ),
    (
        "nv_inference_queue_duration_us",
        "Cumulative inference queuing duration in microseconds (includes cached requests)",
        lambda s: s.queue.us,
    ),
    (
        "nv_inference_compute_input_duration_us",
        "Cumulative compute input duration in microseconds (does not include cached requests)",
        lambda s: s.compute_input.us,
    ),
    (
        "nv_inference_compute_infer_duration_us",
        "Cumulative compute inference duration in microseconds (does not include cached requests)",
        lambda s: s.compute_infer.us,
    ),
    (
        "nv_inference_compute_output_duration_us",
        "Cumulative inference compute output duration in microseconds (does not include cached requests)",
        lambda s: s.compute_output.us,
    ),
)


_SUMMARIES = {
    "request": "Summary of inference request duration in microseconds (includes cached requests)",
    "queue": "Summary of inference queuing duration in microseconds (includes cached requests)",
    "compute_input": "Cumulative compute input duration in microseconds (does not include cached requests)",
    "compute_infer": "Cumulative compute inference duration in microseconds (does not include cached requests)",
    "compute_output": "Cumulative inference compute output duration in microseconds (does not include cached requests)",
}

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
    "nv_energy_consumption": "GPU energy consumption in joules since the Triton Server started",
}


def families(
    models: dict[str, Model], memory: dict[int, int], system: dict[str, Any], config: MetricsConfig, now: float
) -> list[dict[str, Any]]:
    """All families; `memory` is the proportional set size by process id in bytes, `system` as in MemorySampled."""
    versions = [v for _, model in sorted(models.items()) for _, v in sorted(model.versions.items())]
    served = [v for v in versions if v.state is VersionState.READY or v.statistics.execution_count]
    for version in served:
        for statistics in (version.statistics, *version.devices.values()):
            statistics.settle()
    uuids = system.get("gpu_uuids", {})
    counted = [row for version in served for row in _counted(version, uuids)]
    uncached = [row for version in served if not version.is_cached for row in _counted(version, uuids)]
    counters = [one for one in _COUNTERS if config.counter_latencies or not one[0].endswith("_us")]
    found = [
        _family(name, "counter", text, [(labels, read(statistics), "") for labels, statistics in counted])
        for name, text, read in counters
    ]
    found.insert(1, _failures(counted))
    found += cache_metrics.by_model(served, labels_of, config.counter_latencies)
    found.append(
        _family(
            "nv_inference_pending_request_count",
            "gauge",
            "Instantaneous number of pending requests awaiting execution per-model.",
            [(labels_of(v), len(v.scheduler), "") for v in served],
        )
    )
    found.append(
        _family(
            "nv_model_load_duration_secs",
            "gauge",
            "Seconds that the model took to load",
            [(labels_of(v), v.load_seconds, "") for v in served],
        )
    )
    return (
        found
        + _distributions(served, counted, uncached, config, now)
        + _system(system)
        + _reloads(models.values())
        + _instances(versions, memory)
    )


def _counted(version: Version, uuids: Mapping[str, str]) -> list[tuple[dict[str, str], Statistics]]:
    """The statistics of a version with their labels: for each GPU that it has instances on, and for what none did."""
    labels = labels_of(version)
    by_uuid = {_uuid(device, uuids): statistics for device, statistics in version.devices.items() if device}
    if not by_uuid or "" in by_uuid:
        return [(labels, version.statistics)]
    rows = [({**labels, "gpu_uuid": uuid}, statistics) for uuid, statistics in sorted(by_uuid.items())]
    rest = version.devices[""]
    is_on_cpu = any(not instance.spec.device for instance in version.instances)
    return [*rows, (labels, rest)] if is_on_cpu or rest.success.count or rest.fail.count else rows


def _uuid(device: str, uuids: Mapping[str, str]) -> str:
    """The GPU's uuid by its entry in CUDA_VISIBLE_DEVICES: an index, a uuid, or how that begins; "": not known."""
    if device.isdecimal():
        return uuids.get(device, "")
    return next((uuid for uuid in uuids.values() if uuid.startswith(device)), device)


def _distributions(
    versions: list[Version],
    counted: list[tuple[dict[str, str], Statistics]],
    uncached: list[tuple[dict[str, str], Statistics]],
    config: MetricsConfig,
    now: float,
) -> list[dict[str, Any]]:
    """Histograms of latencies, beyond Triton always on; Triton's own histogram and summaries when asked for."""
    kept = [(labels, statistics.latencies) for labels, statistics in counted]
    executed = [(labels, statistics.latencies) for labels, statistics in uncached]
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
            FIRST_RESPONSE,
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
        found.append(_family(f"nv_inference_{name}_summary_us", "summary", _SUMMARIES[name], samples))
    return found + cache_metrics.summaries(versions, labels_of, config.summary_quantiles, now)


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


def _failures(counted: list[tuple[dict[str, str], Statistics]]) -> dict[str, Any]:
    samples = [
        ({**labels, "reason": reason}, float(count), "")
        for labels, statistics in counted
        for reason, count in statistics.failures.items()
    ]
    return _family(
        "nv_inference_request_failure", "counter", "Number of failed inference requests, all batch sizes", samples
    )


def _reloads(models: Iterable[Model]) -> list[dict[str, Any]]:
    """Beyond Triton: whether what is served is what is configured, and how often that has changed."""
    served = [(_names(m.name, m.description), m) for m in sorted(models, key=lambda m: m.name) if m.is_served]
    reloads = [
        ({**labels, "outcome": outcome}, float(model.reloads[outcome]), "")
        for labels, model in served
        for outcome in ("applied", "failed")
    ]
    outdated = [(labels, float(bool(model.rejected)), "") for labels, model in served]
    return [
        _family("tidepool_model_reloads", "counter", "Reloads of a model that served, by outcome", reloads),
        _family("tidepool_model_outdated", "gauge", "Whether the newest configuration could not be loaded", outdated),
    ]


def _instances(versions: Iterable[Version], memory: dict[int, int]) -> list[dict[str, Any]]:
    """Beyond Triton: each instance is a process, with its own memory, readiness and restarts."""
    ready: list[Sample] = []
    resident: list[Sample] = []
    restarts: list[Sample] = []
    used: list[Sample] = []
    mapped: list[Sample] = []
    for version in versions:
        for instance in _distinct(version.instances):
            labels = {**labels_of(version), "instance": instance.key, "device": instance.spec.device or "cpu"}
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


def labels_of(version: Version) -> dict[str, str]:
    """The model, and the `metric_tags` of its configuration with `_` before their names."""
    tags = version.description.config.get("metric_tags", {})
    return {
        **_names(version.model, version.description),
        "version": str(version.number),
        **{f"_{_NO_LABEL.sub('_', tag)}": text for tag, text in tags.items()},
    }


def _names(model: str, description: ModelDescription | None) -> dict[str, str]:
    namespace = description.namespace if description is not None else ""
    return {"model": bare_name(model), **({"namespace": namespace} if namespace else {})}


def _family(name: str, kind: str, text: str, samples: list[Sample]) -> dict[str, Any]:
    return {"name": name, "type": kind, "help": text, "samples": samples}
