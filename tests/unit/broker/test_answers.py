"""What clients hear about models: lookups and their errors, metadata, readiness, statistics."""

from typing import Any

import pytest

from broker import answers
from broker.messages import ErrorCode
from broker.models import Instance, InstanceState, Model, Version, VersionState
from broker.statistics import Duration, Statistics
from broker.validation import Rejected
from configs.description import TensorSpec
from tests.unit.broker.describe import description, instances

READY, LOADING, UNAVAILABLE = VersionState.READY, VersionState.LOADING, VersionState.UNAVAILABLE


def version(number: int, state: VersionState = READY, is_alive: bool = True, **changes: Any) -> Version:
    made = Version.create(description("m", versions=(1, 2, 3), **changes), number)
    made.state = state
    (spec,) = instances("m", 1)
    made.instances = [Instance(spec, made, InstanceState.READY if is_alive else InstanceState.WAITING)]
    return made


def models(*versions: Version) -> dict[str, Model]:
    return {"m": Model("m", versions[0].description if versions else None, {v.number: v for v in versions})}


def refusal(found: dict[str, Model], name: str = "m", number: int = -1) -> tuple[ErrorCode, str]:
    with pytest.raises(Rejected) as caught:
        answers.look_up(found, name, number)
    return caught.value.code, str(caught.value)


def test_the_newest_version_that_is_ready_serves() -> None:
    found = models(version(1), version(2), version(3, LOADING))
    assert answers.look_up(found, "m", -1).number == 2
    assert answers.look_up(found, "m", 1).number == 1


def test_what_cannot_be_found() -> None:
    text = "Request for unknown model: "
    assert refusal({}, "x") == (ErrorCode.NOT_FOUND, f"{text}'x' is not found")
    assert refusal(models()) == (ErrorCode.NOT_FOUND, f"{text}'m' has no available versions")
    assert refusal(models(version(1, UNAVAILABLE))) == (ErrorCode.NOT_FOUND, f"{text}'m' has no available versions")
    found = models(version(1), version(2, LOADING))
    assert refusal(found, number=7) == (ErrorCode.NOT_FOUND, f"{text}'m' version 7 is not found")
    assert refusal(found, number=2) == (ErrorCode.UNAVAILABLE, f"{text}'m' version 2 is not at ready state")
    found["m"].unloaded.add(3)
    assert refusal(found, number=3) == (ErrorCode.UNAVAILABLE, f"{text}'m' version 3 is not at ready state")


def test_a_version_that_loads_beside_is_not_ready() -> None:
    found = models(version(1))
    found["m"].incoming[2] = version(2, LOADING)
    assert refusal(found, number=2)[0] is ErrorCode.UNAVAILABLE
    assert answers.look_up(found, "m", -1).number == 1


def test_metadata() -> None:
    specs = (TensorSpec("A", "FP32", (4, -1)), TensorSpec("B", "", None))
    found = models(
        version(1, inputs=specs, max_batch_size=8, platform="pytorch_libtorch"), version(2), version(3, LOADING)
    )
    assert answers.metadata(found, "m", 1) == {
        "name": "m",
        "versions": ["1"],
        "platform": "pytorch_libtorch",
        "inputs": [
            {"name": "A", "datatype": "FP32", "shape": [-1, 4, -1]},
            {"name": "B", "datatype": "ANY", "shape": [-1]},
        ],
        "outputs": [{"name": "OUT", "datatype": "FP32", "shape": [-1, -1]}],
    }
    newest = answers.metadata(found, "m", -1)
    assert newest["versions"] == ["1", "2"], "all that are ready"
    assert newest["platform"] == "python", "the backend, where there is no platform"
    assert newest["inputs"] == [{"name": "IN", "datatype": "FP32", "shape": [-1]}], "no batch dimension"


def test_readiness_of_models() -> None:
    found = models(version(1), version(2, is_alive=False), version(3, LOADING))
    assert answers.is_model_ready(found, "m", -1)
    assert [answers.is_model_ready(found, "m", number) for number in (1, 2, 3, 4)] == [True, False, False, False]
    assert not answers.is_model_ready(found, "x", -1)
    assert not answers.is_model_ready(models(version(1, is_alive=False)), "m", -1)


def test_statistics_are_those_of_ready_versions() -> None:
    found = models(version(1), version(2), version(3, LOADING))
    found["a"] = models(version(1))["m"]

    def listed(name: str, number: int) -> list[tuple[str, str]]:
        return [(s["name"], s["version"]) for s in answers.statistics(found, name, number)["model_stats"]]

    assert listed("m", -1) == [("m", "1"), ("m", "2")]
    assert listed("m", 2) == [("m", "2")]
    assert len(listed("", -1)) == 3
    for name, number, text in (
        ("x", -1, "requested model 'x' is not available"),
        ("m", 3, "requested model version is not available for model 'm'"),
        ("m", 9, "requested model version is not available for model 'm'"),
    ):
        with pytest.raises(Rejected, match=text) as caught:
            answers.statistics(found, name, number)
        assert caught.value.code is ErrorCode.INVALID_ARG
    with pytest.raises(Rejected, match="requested model 'm' is not available"):
        answers.statistics(models(version(1, LOADING)), "m", -1)


# ------------------------------------------------------------------------------------------- counts


def test_durations_add_up_and_metrics_round_each_down() -> None:
    duration = Duration()
    duration.add(1999)
    duration.add(1999, times=2)
    assert (duration.count, duration.ns, duration.us) == (3, 5997, 3)


def test_an_execution_counts_once_and_each_request_by_its_batch() -> None:
    found = Statistics()
    times = (1000, 3000, 10_000, 11_000)
    found.executed(5, times, 1_700_000_000_000)
    found.succeeded(2, 20_000, 500, times, 1.0)
    found.succeeded(3, 30_000, 700, times, 1.0)
    found.executed(1, times, 1_700_000_000_001)
    found.failed("BACKEND", 40_000)
    found.failed("CANCELED", 1000)
    stats = found.to_json("m", 1)
    assert (stats["inference_count"], stats["execution_count"]) == (5, 2)
    assert stats["last_inference"] == 1_700_000_000_001
    assert stats["inference_stats"] == {
        "success": {"count": 2, "ns": 50_000},
        "fail": {"count": 2, "ns": 41_000},
        "queue": {"count": 2, "ns": 1200},
        "compute_input": {"count": 2, "ns": 4000},
        "compute_infer": {"count": 2, "ns": 14_000},
        "compute_output": {"count": 2, "ns": 2000},
        "cache_hit": {"count": 0, "ns": 0},
        "cache_miss": {"count": 0, "ns": 0},
    }
    assert [(each["batch_size"], each["compute_infer"]) for each in stats["batch_stats"]] == [
        (1, {"count": 1, "ns": 7000}),
        (5, {"count": 1, "ns": 7000}),
    ]
    assert found.failures == {"REJECTED": 0, "CANCELED": 1, "BACKEND": 1, "OTHER": 0}
    assert Statistics().to_json("m", 1)["last_inference"] == 0
