"""The metrics page of a running server: distributions, gauges, and counters that agree with the statistics."""

import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.clients import PROTOCOLS, Client
from tests.support.repository import FAIL, SLEEP, Commands, write_identity
from tests.support.server import Server
from tests.support.waiting import until

TRITON = Path(__file__).parent / "recorded" / "triton-2.51-metrics.txt"
"""The page of the real server after one request, with summaries on."""
KINDS = ("histogram_latencies=true", "summary_latencies=true", "summary_quantiles=0.5:0.05,0.9:0.01")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that has answered 20 requests over each protocol, one of them slowly, and two with an error."""
    flags = [f"--metrics-config={kind}" for kind in KINDS]
    server = Server(tmp_path_factory.mktemp("metrics"), "", *flags, "--metrics-interval-ms=200")
    write_identity(server.repository, "identity")
    commands = Commands(server.repository)
    with server:
        for protocol in PROTOCOLS:
            with Client(protocol, server) as client:
                for _ in range(20):
                    client.infer("identity", {"IN": np.zeros(4, np.float32)})
                client.infer("commands", {"IN": commands.order(SLEEP, 150)})
                with pytest.raises(Exception, match="told to fail"):
                    client.infer("commands", {"IN": commands.order(FAIL, 1)})
        yield server


def families(server: Server) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://{server.address('metrics')}/metrics", timeout=10) as page:
        return {family.name: family for family in text_string_to_metric_families(page.read().decode())}


def test_counters_agree_with_the_statistics(server: Server) -> None:
    for name in ("identity", "commands"):
        with Client("http", server) as client:
            statistics = client.statistics(name)
        stats, labels = statistics["inference_stats"], {"model": name, "version": "1"}
        assert server.metric("nv_inference_request_success", **labels) == stats["success"]["count"]
        assert server.metric("nv_inference_request_failure", reason="BACKEND", **labels) == stats["fail"]["count"]
        assert server.metric("nv_inference_count", **labels) == statistics["inference_count"]
        assert server.metric("nv_inference_exec_count", **labels) == statistics["execution_count"]
        for part, metric in {"success": "request"}.items() | {(p, p) for p in stats if p.startswith(("queue", "comp"))}:
            in_us = server.metric(f"nv_inference_{metric}_duration_us", **labels)
            assert in_us is not None
            assert 0 <= stats[part]["ns"] / 1000 - in_us < stats[part]["count"], "rounded down for each request"


def test_every_family_of_triton_has_its_type_its_help_and_its_labels(server: Server) -> None:
    until(lambda: server.metric("nv_cpu_memory_total_bytes"), 20, "the machine was sampled")
    found = families(server)
    for theirs in text_string_to_metric_families(TRITON.read_text()):
        if theirs.name.startswith("nv_pinned_memory_pool"):
            continue  # there is no such pool
        ours = found[theirs.name]
        assert (ours.type, ours.documentation) == (theirs.type, theirs.documentation), theirs.name
        assert _labels(ours.samples) == _labels(theirs.samples), theirs.name


def _labels(samples: Iterable[Any]) -> set[tuple[str, ...]]:
    return {(sample.name, *sorted(sample.labels)) for sample in samples}


def test_histograms_and_summaries_count_every_success(server: Server) -> None:
    found = families(server)
    for name in ("tidepool_request_duration_seconds", "tidepool_compute_duration_seconds"):
        rows = {
            (s.name.removeprefix(name), s.labels.get("le")): s.value for s in found[name].samples if _is(s, "commands")
        }
        assert rows["_count", None] == rows["_bucket", "+Inf"] == 2
        assert rows["_bucket", "0.1"] == 0
        assert 0.3 <= rows["_sum", None] < 10
    first = found["nv_inference_first_response_histogram_ms"].samples
    assert next(s.value for s in first if _is(s, "commands") and s.labels.get("le") == "100") == 0
    assert next(s.value for s in first if _is(s, "commands") and s.labels.get("le") == "+Inf") == 2
    queue = {s.labels.get("quantile") for s in found["nv_inference_queue_summary_us"].samples if _is(s, "identity")}
    assert queue == {"0.5", "0.9", None}
    assert server.metric("nv_inference_request_summary_us", model="commands", quantile="0.9") is not None
    (median,) = [
        s.value
        for s in found["nv_inference_compute_infer_summary_us"].samples
        if _is(s, "commands") and s.labels.get("quantile") == "0.5"
    ]
    assert 150_000 * 0.97 < median < 5_000_000


def _is(sample: Any, model: str) -> bool:
    return bool(sample.labels["model"] == model)


def test_gauges_of_the_machine_and_of_the_models(server: Server) -> None:
    until(lambda: server.metric("nv_cpu_memory_total_bytes"), 20, "the machine was sampled")
    total, used = server.metric("nv_cpu_memory_total_bytes"), server.metric("nv_cpu_memory_used_bytes")
    utilization = server.metric("nv_cpu_utilization")
    assert total is not None
    assert used is not None
    assert utilization is not None
    assert 0 < used < total
    assert 0 <= utilization <= 1
    for name in ("identity", "commands"):
        duration = server.metric("nv_model_load_duration_secs", model=name, version="1")
        assert duration is not None
        assert 0.01 < duration < 60
        assert server.metric("nv_inference_pending_request_count", model=name) == 0
        memory = server.metric("tidepool_instance_memory_bytes", model=name)
        assert memory is not None
        assert memory > 1 << 20


def test_gauges_can_be_left_out(tmp_path: Any) -> None:
    server = Server(tmp_path, "", "--allow-cpu-metrics=false", "--metrics-config=counter_latencies=false")
    write_identity(server.repository, "identity")
    with server, Client("http", server) as client:
        client.infer("identity", {"IN": np.zeros(4, np.float32)})
        until(lambda: server.metric("tidepool_instance_memory_bytes"), 20, "the machine was sampled")
        found = families(server)
        assert not [name for name in found if name.startswith("nv_cpu")]
        assert "nv_inference_request_duration_us" not in found
        assert server.metric("nv_inference_request_success", model="identity") == 1
