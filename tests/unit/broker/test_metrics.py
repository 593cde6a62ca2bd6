"""The metrics page: Triton's families, labels and switches, and counters that agree with the statistics."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker import models
from broker.latencies import Sample
from broker.messages import ErrorCode, MemorySampled
from broker.metrics import families
from broker.models import InstanceState, Version
from configs.description import Instance
from configs.metrics_config import MetricsConfig
from tests.unit.broker.describe import batching, description, infer
from tests.unit.broker.world import World

LABELS = {"model": "a", "version": "1"}
DEFAULT = MetricsConfig()
EVERYTHING = MetricsConfig(histogram_latencies=True, summary_latencies=True, summary_quantiles=(0.5, 0.99))


def served(requests: int = 3, failures: int = 1, **settings: Any) -> World:
    """A world in which a model has answered so many requests of batch 2."""
    world = World(**settings)
    world.start(description("a", batching=batching()))
    for number in range(requests + failures):
        world.ask(world.frontends[0], infer(0, "a", (2, 4)))
        (worker,) = world.workers
        world.advance(0.25)
        world.begin(worker)
        world.advance(0.25)
        world.finish(worker, ErrorCode.OK if number < requests else ErrorCode.INTERNAL, seconds=0.2)
        world.deliver(worker)
    return world


def page(world: World, config: MetricsConfig = DEFAULT, system: Any = None) -> dict[str, list[Sample]]:
    found = families(world.core.models, {4711: 5000}, system or {}, config, world.now)
    assert len({family["name"] for family in found}) == len(found)
    for family in found:
        check_unique(family)
    return {family["name"]: family["samples"] for family in found}


def check_unique(family: dict[str, Any]) -> None:
    """Prometheus refuses the whole page when it has a series twice."""
    series = [(tuple(sorted(labels.items())), end) for labels, _, end in family["samples"]]
    assert len(set(series)) == len(series), f"a series of {family['name']} is there twice"


def value(samples: list[Sample], suffix: str = "", **labels: str) -> float:
    (found,) = [number for have, number, end in samples if end == suffix and labels.items() <= have.items()]
    return found


def test_counters_agree_with_the_statistics() -> None:
    world = served()
    found = page(world)
    (version,) = world.core.models["a"].versions.values()
    stats = version.statistics.to_json("a", 1)["inference_stats"]
    assert value(found["nv_inference_request_success"], **LABELS) == stats["success"]["count"] == 3
    assert value(found["nv_inference_count"], **LABELS) == 6
    assert value(found["nv_inference_exec_count"], **LABELS) == 4, "failed ones were executed, too"
    reasons = {labels["reason"]: number for labels, number, _ in found["nv_inference_request_failure"]}
    assert reasons == {"REJECTED": 0, "CANCELED": 0, "BACKEND": stats["fail"]["count"], "OTHER": 0}
    for name, metric in {
        "success": "request",
        "queue": "queue",
        "compute_input": "compute_input",
        "compute_infer": "compute_infer",
        "compute_output": "compute_output",
    }.items():
        in_us = value(found[f"nv_inference_{metric}_duration_us"], **LABELS)
        assert stats[name]["ns"] // 1000 - 3 <= in_us <= stats[name]["ns"] // 1000


def test_a_request_takes_its_queue_and_its_computation() -> None:
    found = page(served(requests=1, failures=0))
    assert value(found["nv_inference_request_duration_us"]) == pytest.approx(500_000, rel=0.01)
    assert value(found["nv_inference_queue_duration_us"]) == pytest.approx(300_000, rel=0.01)
    assert value(found["nv_inference_compute_infer_duration_us"]) == pytest.approx(200_000, rel=0.01)


def test_the_tags_of_a_model_are_labels() -> None:
    world = World()
    tags = {"metric_tags": {"team": "vision", "cost-center": "7"}}
    world.start(description("a", config=tags))
    ((labels, _, _),) = page(world)["nv_inference_count"]
    assert labels == {**LABELS, "_team": "vision", "_cost_center": "7"}


def test_requests_that_wait_are_pending() -> None:
    world = World()
    world.start(description("a", batching=batching(delay=100.0)))
    for _ in range(3):
        world.ask(world.frontends[0], infer(0, "a", (1, 4)))
    assert value(page(world)["nv_inference_pending_request_count"], **LABELS) == 3


def test_loading_takes_time() -> None:
    world = World()
    world.start()
    world.describe(description("a"))
    world.advance(2.0)
    (worker,) = world.workers
    world.boot(worker)
    assert value(page(world)["nv_model_load_duration_secs"], **LABELS) == pytest.approx(2.0)


def test_reloads_are_counted_and_one_that_failed_is_told_until_another_succeeds() -> None:
    world = World()
    world.start(description("a"))

    def reload(fingerprint: str, error: str = "") -> tuple[float, float, float]:
        """Applied, failed, outdated."""
        world.describe(description("a", fingerprint=fingerprint))
        worker = world.workers[-1]
        if error:
            world.greet(worker)
            world.hear(worker)
            world.load(worker, error)
        else:
            world.boot(worker)
        world.settle()
        found = page(world)
        reloads = found["tidepool_model_reloads"]
        applied, failed = (value(reloads, model="a", outcome=outcome) for outcome in ("applied", "failed"))
        return applied, failed, value(found["tidepool_model_outdated"], model="a")

    assert reload("a") == (0, 0, 0), "nothing has changed"
    assert reload("b") == (1, 0, 0)
    assert reload("c", "syntax error") == (1, 1, 1)
    assert reload("d") == (2, 1, 0)
    world.reject("a", "nonsense")
    assert value(page(world)["tidepool_model_reloads"], outcome="failed") == 2


def test_histograms_of_latencies_are_always_there_and_count_every_success() -> None:
    found = page(served())
    for name in ("request", "queue", "compute"):
        samples = found[f"tidepool_{name}_duration_seconds"]
        assert value(samples, "_bucket", le="+Inf") == value(samples, "_count") == 3
    assert value(found["tidepool_request_duration_seconds"], "_sum") == pytest.approx(1.5)
    assert value(found["tidepool_request_duration_seconds"], "_bucket", le="0.25") == 0
    assert value(found["tidepool_compute_duration_seconds"], "_bucket", le="0.25") == 3


def test_tritons_histogram_and_summaries_are_there_when_asked_for() -> None:
    off = page(served())
    assert off["nv_inference_first_response_histogram_ms"] == []
    assert off["nv_inference_request_summary_us"] == []
    world = served(metrics_config=("histogram_latencies=true", "summary_latencies=true"))
    on = page(world, EVERYTHING)
    first = on["nv_inference_first_response_histogram_ms"]
    assert [value(first, "_bucket", le=bound) for bound in ("100", "500", "2000", "5000", "+Inf")] == [0, 3, 3, 3, 3]
    assert value(on["nv_inference_request_summary_us"], quantile="0.5") == pytest.approx(500_000, rel=0.02)
    assert value(on["nv_inference_queue_summary_us"], "_count") == 3
    assert {labels.get("quantile") for labels, _, _ in on["nv_inference_compute_infer_summary_us"]} == {
        "0.5",
        "0.99",
        None,
    }


def test_latency_counters_can_be_switched_off() -> None:
    found = page(served(), MetricsConfig(counter_latencies=False))
    assert "nv_inference_request_duration_us" not in found
    assert value(found["nv_inference_request_success"], **LABELS) == 3


def test_the_machine_has_gauges_without_labels_and_gpus_have_their_uuid() -> None:
    system = {"nv_cpu_utilization": 0.5, "nv_gpu_power_usage": {"GPU-1": 70.0, "GPU-0": 60.0}}
    found = page(served(), system=system)
    assert found["nv_cpu_utilization"] == [({}, 0.5, "")]
    assert found["nv_gpu_power_usage"] == [({"gpu_uuid": "GPU-0"}, 60.0, ""), ({"gpu_uuid": "GPU-1"}, 70.0, "")]
    assert found["nv_gpu_utilization"] == []


def on_gpus(*devices: str) -> World:
    """A world whose model has an instance on each of these devices (`""`: the CPU), which answers one request."""
    specs = [Instance(f"a_{n}", "KIND_GPU" if gpu else "KIND_CPU", gpu, gpu, gpu) for n, gpu in enumerate(devices)]
    world = World(metrics_config=("histogram_latencies=true", "summary_latencies=true"))
    world.start(description("a", instances=tuple(specs)))
    for _ in specs:
        world.ask(world.frontends[0], infer(0, "a"))
    for worker in world.workers:
        world.begin(worker)
    world.advance(0.5)
    for worker in world.workers:
        world.finish(worker, seconds=0.25)
        world.deliver(worker)
    return world


UUIDS = {"gpu_uuids": {"0": "GPU-a", "1": "GPU-bcd"}}


def test_what_a_gpu_did_has_its_uuid() -> None:
    found = page(on_gpus("0", "GPU-b", "GPU-b"), EVERYTHING, UUIDS)
    for name, number in (("nv_inference_count", [1, 2]), ("nv_inference_exec_count", [1, 2])):
        assert [(labels, n) for labels, n, _ in found[name]] == [
            ({**LABELS, "gpu_uuid": uuid}, n) for uuid, n in zip(("GPU-a", "GPU-bcd"), number, strict=True)
        ]
    assert {labels["gpu_uuid"] for labels, _, _ in found["nv_inference_request_failure"]} == {"GPU-a", "GPU-bcd"}
    assert value(found["nv_inference_queue_summary_us"], "_count", gpu_uuid="GPU-a") == 1
    assert value(found["nv_inference_first_response_histogram_ms"], "_count", gpu_uuid="GPU-bcd") == 2
    assert value(found["nv_inference_compute_infer_duration_us"], gpu_uuid="GPU-a") == pytest.approx(250_000, rel=0.01)
    assert found["nv_inference_pending_request_count"] == [(LABELS, 0, "")], "the queue is the model's"


def test_what_no_gpu_did_has_no_uuid() -> None:
    found = page(on_gpus("0", ""), system=UUIDS)["nv_inference_request_success"]
    assert found == [({**LABELS, "gpu_uuid": "GPU-a"}, 1, ""), (LABELS, 1, "")]


def test_failures_before_an_execution_are_no_gpus() -> None:
    world = on_gpus("0")
    world.ask(world.frontends[0], infer(0, "a"))
    world.cancel(world.ask(world.frontends[0], infer(0, "a")))
    world.begin(world.workers[0])
    world.finish(world.workers[0], ErrorCode.INTERNAL)
    world.deliver(world.workers[0])
    rows = page(world, system=UUIDS)["nv_inference_request_failure"]
    failed = {(labels["reason"], labels.get("gpu_uuid")) for labels, count, _ in rows if count}
    assert failed == {("BACKEND", "GPU-a"), ("CANCELED", None)}


def test_uuids_that_are_not_known_are_left_out() -> None:
    assert page(on_gpus("0", "1"))["nv_inference_count"] == [(LABELS, 2, "")]


def test_a_model_chooses_the_buckets_of_its_histogram() -> None:
    control = {
        "metric_identifier": {"family": "nv_inference_first_response_histogram_ms"},
        "histogram_options": {"buckets": [0.5, 600.0]},
    }
    world = World(metrics_config=("histogram_latencies=true",))
    world.start(description("a", config={"model_metrics": {"metric_control": [control]}}), description("b"))
    rows = page(world, EVERYTHING)["nv_inference_first_response_histogram_ms"]
    bounds = {(labels["model"], labels["le"]) for labels, _, suffix in rows if suffix == "_bucket"}
    assert {bound for model, bound in bounds if model == "a"} == {"0.5", "600", "+Inf"}
    assert {bound for model, bound in bounds if model == "b"} == {"100", "500", "2000", "5000", "+Inf"}


def test_each_instance_shows_its_process() -> None:
    world = served()
    found = page(world)
    labels = {**LABELS, "instance": "a_0_0", "device": "cpu"}
    assert found["tidepool_instance_ready"] == [(labels, 1.0, "")]
    assert found["tidepool_instance_memory_bytes"] == [(labels, 5000.0, "")]
    assert found["tidepool_instance_restarts"] == []
    world.bury(world.workers[0])
    found = page(world)
    assert value(found["tidepool_instance_restarts"], cause="crash") == 1
    assert value(found["tidepool_instance_ready"]) == 0


def test_what_the_repository_process_has_sampled_is_on_the_page_of_the_core() -> None:
    world = served()
    (repository,) = world.of("repository")
    world.say(repository, MemorySampled({4711: 9000}, {"nv_cpu_memory_total_bytes": 12}, {}))
    world.deliver(repository)
    found = {family["name"]: family["samples"] for family in world.core._metrics()}
    assert found["nv_cpu_memory_total_bytes"] == [({}, 12, "")]
    assert value(found["tidepool_instance_memory_bytes"]) == 9000


def test_an_instance_on_its_way_out_does_not_repeat_the_series_of_the_one_that_takes_its_name() -> None:
    world = World()
    world.start(description("a", count=2))
    for worker in world.workers:
        world.ask(world.frontends[0], infer(0, "a"))
        world.begin(worker)
    world.describe(description("a", count=1))
    world.describe(description("a", count=2))
    (version,) = world.core.models["a"].versions.values()
    assert sorted(instance.key for instance in version.instances) == ["a_0_0", "a_0_1", "a_0_1"]
    rows = page(world)["tidepool_instance_ready"]
    assert sorted((labels["instance"], ready) for labels, ready, _ in rows) == [("a_0_0", 1.0), ("a_0_1", 0.0)]


INSTANCES = st.lists(
    st.tuples(
        st.sampled_from(["a_0_0", "a_0_1"]),
        st.sampled_from(["", "0"]),
        st.sampled_from(InstanceState),
        st.sampled_from([{}, {"crash": 1}, {"crash": 2, "hung": 1}]),
    ),
    max_size=5,
)


@given(INSTANCES)
def test_no_series_is_there_twice_whatever_instances_there_are(found: list[Any]) -> None:
    version = Version.create(description("a"), 1)
    for name, device, state, restarts in found:
        spec = Instance(name, "KIND_GPU", device, device, device)
        version.instances.append(models.Instance(spec, version, state, pid=4711, restarts=restarts))
    model = models.Model("a", versions={1: version})
    pages = families({"a": model}, {4711: 5000}, {}, EVERYTHING, 0.0)
    for family in pages:
        check_unique(family)
    (ready,) = [family["samples"] for family in pages if family["name"] == "tidepool_instance_ready"]
    named = {(name, device or "cpu") for name, device, _, _ in found}
    assert {(labels["instance"], labels["device"]) for labels, _, _ in ready} == named
    serving = {(n, d or "cpu") for n, d, state, _ in found if state is InstanceState.READY}
    assert {(labels["instance"], labels["device"]) for labels, is_ready, _ in ready if is_ready} == serving
