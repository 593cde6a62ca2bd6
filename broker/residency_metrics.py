"""Metric families about models in memory and the budgets that they share. Pure; all beyond Triton's."""

from collections.abc import Iterable, Mapping
from typing import Any

from broker.footprints import measured
from broker.latencies import Sample
from broker.metrics import labels_of
from broker.models import Instance, Model
from broker.on_demand import OnDemand
from broker.residency import CPU


def families(models: Mapping[str, Model], workers: Iterable[Instance], state: OnDemand) -> list[dict[str, Any]]:
    """`workers` are all instances that have a process, also of versions that are going."""
    versions = [version for _, model in sorted(models.items()) for _, version in sorted(model.versions.items())]
    there = [version for version in versions if not version.description.steps]
    told = [(version, state.records[version]) for version in there if version in state.records]
    return [
        _family(
            "tidepool_memory_used_bytes",
            "gauge",
            "Memory of all instances' processes, as measured last, by device",
            [({"device": place}, float(size), "") for place, size in sorted({CPU: 0, **measured(workers)}.items())],
        ),
        _family(
            "tidepool_memory_budget_bytes",
            "gauge",
            "Memory that all instances' processes together may have",
            [({"device": place}, float(size), "") for place, size in sorted(state.census.budget().items())],
        ),
        _family(
            "tidepool_model_memory_bytes",
            "gauge",
            "Memory of the model's processes, as measured last, by device",
            [
                ({**labels_of(version), "device": place}, float(size), "")
                for version in there
                for place, size in sorted({CPU: 0, **measured(version.instances)}.items())
            ],
        ),
        _family(
            "tidepool_model_resident",
            "gauge",
            "Whether the model is in memory (1) or is loaded by the next request (0)",
            [(labels_of(version), float(not version.is_cold), "") for version in there],
        ),
        _family(
            "tidepool_model_wanted_instances",
            "gauge",
            "Instances that the model is to have now",
            [(labels_of(version), float(len(version.wanted)), "") for version in there],
        ),
        _family(
            "tidepool_model_loads",
            "counter",
            "How often a request has had the model loaded",
            [(labels_of(version), float(record.loads), "") for version, record in told],
        ),
        _family(
            "tidepool_model_unloads",
            "counter",
            "How often the model has left memory: it was idle, or others needed the room",
            [
                ({**labels_of(version), "reason": why}, float(times), "")
                for version, record in told
                for why, times in sorted(record.unloads.items())
            ],
        ),
        _family(
            "tidepool_model_cold_requests",
            "counter",
            "Requests that have waited for their model to be loaded",
            [(labels_of(version), float(record.cold_requests), "") for version, record in told],
        ),
    ]


def _family(name: str, kind: str, text: str, samples: list[Sample]) -> dict[str, Any]:
    return {"name": name, "type": kind, "help": text, "samples": samples}
