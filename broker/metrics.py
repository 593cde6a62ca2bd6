"""The metric families of the metrics page, made from the core's state. Pure; names and labels are Triton's."""

from collections.abc import Callable, Iterable
from typing import Any

from broker.models import InstanceState, Model, Version

Sample = tuple[dict[str, str], float]

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


def families(models: dict[str, Model], memory: dict[int, int]) -> list[dict[str, Any]]:
    """All families; `memory` is the proportional set size by process id, in bytes."""
    versions = [v for _, model in sorted(models.items()) for _, v in sorted(model.versions.items())]
    served = [v for v in versions if v.is_ready or v.statistics.execution_count]
    found = [_family(name, "counter", text, [(_labels(v), read(v)) for v in served]) for name, text, read in _COUNTERS]
    found.insert(1, _failures(served))
    found.append(
        _family(
            "nv_inference_pending_request_count",
            "gauge",
            "Instantaneous number of pending requests awaiting execution",
            [(_labels(v), len(v.scheduler)) for v in served],
        )
    )
    return found + _instances(versions, memory)


def _failures(versions: Iterable[Version]) -> dict[str, Any]:
    samples = [
        ({**_labels(v), "reason": reason}, float(count))
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
        for instance in version.instances:
            labels = {**_labels(version), "instance": instance.key, "device": instance.spec.device or "cpu"}
            ready.append((labels, float(instance.state is InstanceState.READY)))
            if instance.pid in memory:
                resident.append((labels, float(memory[instance.pid])))
            restarts += [({**labels, "cause": cause}, float(n)) for cause, n in instance.restarts.items()]
            used.append((labels, float(instance.shm_used)))
            mapped.append((labels, float(instance.shm_mapped)))
    return [
        _family("tidepool_instance_ready", "gauge", "Whether the instance's process is ready (1) or not (0)", ready),
        _family("tidepool_instance_memory_bytes", "gauge", "Proportional set size of the instance's process", resident),
        _family("tidepool_instance_restarts", "counter", "Restarts of the instance's process by cause", restarts),
        _family("tidepool_instance_shm_used_bytes", "gauge", "Bytes in output blocks that are out", used),
        _family("tidepool_instance_shm_mapped_bytes", "gauge", "Bytes mapped (reserved or not) for outputs", mapped),
    ]


def _labels(version: Version) -> dict[str, str]:
    return {"model": version.model, "version": str(version.number)}


def _family(name: str, kind: str, text: str, samples: list[Sample]) -> dict[str, Any]:
    return {"name": name, "type": kind, "help": text, "samples": samples}
