"""What balancers are told about the load."""

import pytest

from frontends.http.orca import FAMILY, KIND, header


def families(**blocks: float) -> list[dict[str, object]]:
    samples = [({"model": "llm", KIND: kind}, number, "") for kind, number in blocks.items()]
    return [{"name": "nv_other", "samples": [({KIND: "used"}, 1.0, "")]}, {"name": FAMILY, "samples": samples}]


@pytest.mark.parametrize(
    ("form", "value"),
    [
        ("text", "TEXT named_metrics.kv_cache_utilization=0.250000, named_metrics.max_token_capacity=6400"),
        ("json", 'JSON {"named_metrics":{"kv_cache_utilization":0.25,"max_token_capacity":6400}}'),
        ("http", ""),
    ],
)
def test_the_load_in_both_forms(form: str, value: str) -> None:
    assert header(form, families(used=25, max=100, tokens_per=64, free=75)) == value


def test_a_cache_without_blocks_is_empty() -> None:
    assert "utilization=0.000000" in header("text", families(used=0, max=0, tokens_per=64))


def test_without_all_gauges_nothing_is_said() -> None:
    assert header("text", families(used=25, max=100)) == header("text", []) == ""
