"""The metrics page, held against prometheus_client's parser."""

import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from frontends.metrics.exposition import render


def family(name: str, kind: str, *samples: tuple[dict[str, str], float], suffix: str = "") -> dict[str, Any]:
    rows = [(labels, value, suffix) for labels, value in samples]
    return {"name": name, "type": kind, "help": "Some\nhelp", "samples": rows}


def test_the_page() -> None:
    page = render(
        [
            family("nv_inference_count", "counter", ({"version": "1", "model": "m"}, 3.0), ({"model": "n"}, 0.5)),
            family("empty", "gauge"),
            family("plain", "gauge", ({}, math.inf)),
            family("time", "histogram", ({"le": "+Inf"}, 2.0), suffix="_bucket"),
        ]
    )
    assert page.decode() == (
        "# HELP nv_inference_count Some\\nhelp\n"
        "# TYPE nv_inference_count counter\n"
        'nv_inference_count{model="m",version="1"} 3\n'
        'nv_inference_count{model="n"} 0.5\n'
        "# HELP plain Some\\nhelp\n"
        "# TYPE plain gauge\n"
        "plain +Inf\n"
        "# HELP time Some\\nhelp\n"
        "# TYPE time histogram\n"
        'time_bucket{le="+Inf"} 2\n'
    )


@given(st.text(), st.floats())
def test_any_label_and_number_can_be_read_back(label: str, value: float) -> None:
    page = render([family("x", "gauge", ({"a": label}, value))]).decode()
    ((sample,),) = [parsed.samples for parsed in text_string_to_metric_families(page)]
    assert sample.labels == {"a": label}
    assert sample.value == value or math.isnan(value)
