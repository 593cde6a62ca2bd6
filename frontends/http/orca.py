"""Load in response headers for balancers (ORCA): how full a language model's key-value cache is."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from broker.messages import GetMetrics
from frontends.http.call import Call

ASKED = "endpoint-load-metrics-format"
"""The request header that asks for it, with `text` or `json`."""
TOLD = "endpoint-load-metrics"
FAMILY = "nv_trt_llm_kv_cache_block_metrics"
"""The gauges that the model keeps, one for each KIND of block."""
KIND = "kv_cache_block_type"


async def load_headers(call: Call) -> dict[str, str]:
    """The headers of a response, none where nobody asks or no model has such gauges."""
    form = call.request.headers.get(ASKED)
    if form is None:
        return {}
    value = header(form, await call.ask(GetMetrics))
    return {TOLD: value} if value else {}


def header(form: str, families: Iterable[Mapping[str, Any]]) -> str:
    """The load as `text` or `json`, empty when it is not known."""
    blocks = {
        labels.get(KIND): float(number)
        for family in families
        if family["name"] == FAMILY
        for labels, number, _ in family["samples"]
    }
    if not {"used", "max", "tokens_per"} <= blocks.keys() or form not in {"text", "json"}:
        return ""
    utilization = blocks["used"] / blocks["max"] if blocks["max"] > 0 else 0.0
    capacity = int(blocks["max"] * blocks["tokens_per"])
    if form == "json":
        metrics = {"kv_cache_utilization": utilization, "max_token_capacity": capacity}
        return f"JSON {json.dumps({'named_metrics': metrics}, separators=(',', ':'))}"
    return f"TEXT named_metrics.kv_cache_utilization={utilization:f}, named_metrics.max_token_capacity={capacity}"
