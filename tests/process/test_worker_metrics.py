"""Custom metrics in a real worker; the registry is the broker's own."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from broker.custom_metrics import CustomMetrics
from broker.messages import Answer, ChangeMetric, DeclareMetric, DropMetric, ErrorCode, Execute, GetMetricValue
from broker.validation import Rejected
from tests.process.test_worker_python import CONFIG, model
from tests.support.worker import FakeBroker, item

NAMES = ("DeclareMetric", "ChangeMetric", "DropMetric", "GetMetricValue")


def answer(metrics: CustomMetrics, broker: FakeBroker, message: Any) -> None:
    """Do what the core does."""
    content, code, error = None, ErrorCode.OK, ""
    try:
        match message:
            case DeclareMetric():
                metrics.declare("w", message)
            case GetMetricValue():
                content = metrics.value(message)
            case ChangeMetric():
                metrics.change(message)
                return
            case DropMetric():
                metrics.drop("w", message)
                return
    except Rejected as rejected:
        code, error = rejected.code, str(rejected)
    broker.send(Answer(message.request, code, error, content))


def serve(broker: FakeBroker, metrics: CustomMetrics, end: str) -> Any:
    """Answer until a message of the class `end` comes."""
    while True:
        message = broker.wait_for(*NAMES, end)
        if type(message).__name__ == end:
            return message
        answer(metrics, broker, message)


def run(directory: Path, body: str) -> tuple[Any, CustomMetrics]:
    """What a model with this body answers as JSON in OUT, and the metrics then."""
    metrics = CustomMetrics()
    with FakeBroker() as broker:
        broker.begin_load("python", model(directory, body), CONFIG)
        serve(broker, metrics, "Loaded")
        broker.send(Execute(1, (item(broker.ref("IN", np.ones((1, 1), np.float32))),)))
        (result,) = serve(broker, metrics, "Executed").results
        (text,) = broker.arrays(result)["OUT"].tolist()
        assert broker.stop() == 0
    return json.loads(text), metrics


EXECUTE = """
def execute(self, requests):
    import threading
    texts = [json.dumps(self.work())]
    assert threading.active_count() == 1, "metrics need no second thread"
    return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", np.array(texts, dtype=np.object_))])]
"""
FAMILIES = """
def initialize(self, args):
    self.counter = pb_utils.MetricFamily(name="hits", description="how often", kind=pb_utils.MetricFamily.COUNTER)
    self.gauge = pb_utils.MetricFamily("depth", "how deep", pb_utils.MetricFamily.GAUGE)
    self.histogram = pb_utils.MetricFamily("size", "how large", pb_utils.MetricKind.HISTOGRAM)
    self.hits = self.counter.Metric(labels={"a": "1"})
    self.depth = self.gauge.Metric()
    self.size = self.histogram.Metric(labels={}, buckets=[1, 10])
"""


def test_counters_gauges_and_histograms(tmp_path: Path) -> None:
    body = """
def work(self):
    self.hits.increment(2)
    self.hits.increment(0.5)
    self.depth.set(7)
    self.depth.increment(-1)
    self.size.observe(3)
    return [self.hits.value(), self.depth.value(), self.counter.Metric({"a": "1"}).value()]
"""
    values, metrics = run(tmp_path, FAMILIES + body + EXECUTE)
    assert values == [2.5, 6, 2.5]
    found = {family["name"]: (family["type"], family["help"], family["samples"]) for family in metrics.families()}
    assert found["hits"] == ("counter", "how often", [({"a": "1"}, 2.5, "")])
    assert found["depth"] == ("gauge", "how deep", [({}, 6, "")])
    assert found["size"][2][1] == ({"le": "10"}, 1, "_bucket")


def test_metrics_end_with_their_last_object(tmp_path: Path) -> None:
    body = """
def work(self):
    import gc
    again = self.counter.Metric({"a": "1"})
    self.hits = None
    again.increment(1)
    self.depth = self.gauge = None
    gc.collect()
    return again.value()
"""
    value, metrics = run(tmp_path, FAMILIES + body + EXECUTE)
    assert value == 1
    found = {family["name"]: family["samples"] for family in metrics.families()}
    assert found["hits"] == []
    assert "depth" not in found


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        (
            "self.hits.increment(-1)",
            "Failed to increment metric value: Failed to process the request for model 'model_0_0', message: "
            "TRITONSERVER_METRIC_KIND_COUNTER can only be incremented monotonically by non-negative values.",
        ),
        ("self.hits.set(1)", "TRITONSERVER_METRIC_KIND_COUNTER does not support Set"),
        ("self.hits.observe(1)", "TRITONSERVER_METRIC_KIND_COUNTER does not support Observe"),
        ("self.depth.observe(1)", "TRITONSERVER_METRIC_KIND_GAUGE does not support Observe"),
        ("self.size.increment(1)", "TRITONSERVER_METRIC_KIND_HISTOGRAM does not support Increment"),
        ("self.size.value()", "TRITONSERVER_METRIC_KIND_HISTOGRAM does not support Value"),
        (
            "pb_utils.MetricFamily('hits', '', pb_utils.MetricFamily.GAUGE)",
            "Failed to create metric family: Failed to process the request for model 'model_0_0', message: Family name "
            "already exists with different type: 'hits'",
        ),
        ("self.counter.Metric(buckets=[1])", "Buckets are for histograms, which need them"),
        ("self.histogram.Metric()", "Buckets are for histograms, which need them"),
        ("self.histogram.Metric({'x': 'y'}, [2, 1])", "Bucket Boundaries must be strictly sorted"),
        ("self.counter.Metric({'a': 1})", "expected a str, got a int"),
        ("setattr(self, 'counter', None) or self.hits.increment(1)", "'MetricFamily' has been deleted"),
    ],
)
def test_wrong_use(tmp_path: Path, expression: str, text: str) -> None:
    body = f"""
def work(self):
    try:
        {expression}
    except (pb_utils.TritonModelException, TypeError) as error:
        return str(error)
"""
    answer, _ = run(tmp_path, FAMILIES + body + EXECUTE)
    assert text in answer
