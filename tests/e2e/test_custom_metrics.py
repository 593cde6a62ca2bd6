"""Metrics that models define, on the real metrics page."""

import re
import urllib.request
from pathlib import Path

import numpy as np

from tests.support.clients import Client
from tests.support.repository import instances, tensor, write_model
from tests.support.server import Server
from tests.support.waiting import until

SOURCE = """
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.family = pb_utils.MetricFamily("requests_seen", "Requests seen", pb_utils.MetricFamily.COUNTER)
        self.seen = self.family.Metric({"model": args["model_name"]})
        self.sizes = pb_utils.MetricFamily("sizes", "Sizes", pb_utils.MetricFamily.HISTOGRAM)
        self.size = self.sizes.Metric(buckets=[10, 100])

    def execute(self, requests):
        self.seen.increment(len(requests))
        self.size.observe(requests[0].inputs()[0].as_numpy().size)
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", r.inputs()[0].as_numpy())]) for r in requests]
"""


def page(server: Server) -> str:
    with urllib.request.urlopen(f"http://{server.address('metrics')}/metrics", timeout=30) as response:
        text: str = response.read().decode()
    return text


def value(server: Server, sample: str) -> float | None:
    found = re.search(rf"^{re.escape(sample)} (\S+)$", page(server), re.MULTILINE)
    return float(found[1]) if found else None


def test_instances_of_two_models_count_together(tmp_path: Path) -> None:
    server = Server(tmp_path)
    for name in ("a", "b"):
        io = f"input [ {tensor('IN')} ]\noutput [ {tensor('OUT')} ]\n"
        directory = write_model(server.repository, name, f'backend: "python"\n{io}{instances(2)}\n')
        (directory / "1" / "model.py").write_text(SOURCE)
    with server, Client("http", server) as client:
        for number in range(20):
            client.infer("ab"[number % 2], {"IN": np.ones(number * 10, np.float32)})
        until(lambda: value(server, 'requests_seen{model="a"}') == 10, 10, "every request is counted")
        assert value(server, 'requests_seen{model="b"}') == 10
        assert value(server, 'sizes_bucket{le="10"}') == 2
        assert value(server, "sizes_count") == 20
        text = page(server)
        assert "# HELP requests_seen Requests seen\n# TYPE requests_seen counter\n" in text
        assert "nv_inference_count" in text
