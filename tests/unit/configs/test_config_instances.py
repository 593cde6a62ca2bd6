"""Instance groups: names, counts, kinds, and the devices that each instance sees."""

from collections.abc import Sequence
from typing import Any

import pytest

from configs.description import Resource
from configs.instances import MAX_COUNT, Target, default_group, expand, normalise_group
from configs.proto.schema import message
from configs.tree import Node, Position, as_json

EMPTY = as_json(Node(message("inference.ModelInstanceGroup"), {}, Position("", 1, 1)))


def target(gpus: Sequence[str] = (), backend: str = "python") -> Target:
    return Target("m", "p", backend, gpus)


def normalised(groups: list[dict[str, Any]], of: Target) -> list[dict[str, Any]]:
    return [normalise_group({**EMPTY, **group}, index, of) for index, group in enumerate(groups)]


def instances(groups: list[dict[str, Any]], gpus: Sequence[str] = (), backend: str = "python") -> list[tuple[Any, ...]]:
    """(name, device, visible devices) of each instance."""
    expanded = expand(normalised(groups, target(gpus, backend)), gpus)
    return [(one.name, one.device, one.visible_devices) for one in expanded]


def test_two_groups_on_two_gpus() -> None:
    groups = [{"kind": "KIND_GPU", "count": 2, "gpus": [0]}, {"kind": "KIND_GPU", "gpus": [1]}]
    assert instances(groups, ["0", "1"]) == [("m_0_0", "0", "0"), ("m_0_1", "0", "0"), ("m_1_0", "1", "1")]


@pytest.mark.parametrize("gpus", [["3", "5"], ["GPU-aaaa", "GPU-bbbb"], ["MIG-1", "MIG-2"]])
def test_gpus_index_the_servers_own_list_of_devices(gpus: list[str]) -> None:
    assert instances([{"kind": "KIND_GPU", "gpus": [1]}], gpus) == [("m_0_0", gpus[1], gpus[1])]


def test_a_group_without_gpus_takes_all_of_them_and_count_is_for_each() -> None:
    assert instances([{"kind": "KIND_GPU", "count": 2}], ["4", "7"]) == [
        ("m_0_0", "4", "4"),
        ("m_0_1", "4", "4"),
        ("m_0_0", "7", "7"),
        ("m_0_1", "7", "7"),
    ]


def test_the_cpu_sees_no_device_and_a_model_that_places_itself_sees_all() -> None:
    groups = [{"kind": "KIND_CPU"}, {"kind": "KIND_MODEL"}]
    assert instances(groups, ["0"]) == [("m_0_0", "", ""), ("m_1_0", "", None)]


def test_what_an_execution_takes_is_of_its_own_device_or_of_all() -> None:
    resources = [
        {"name": "R", "global": False, "count": 4},
        {"name": "R", "global": False, "count": 3},
        {"name": "G", "global": True, "count": 1},
    ]
    limits = {"rate_limiter": {"resources": resources, "priority": 2}}
    groups = [{"kind": "KIND_GPU", "gpus": [0, 1], **limits}, {"kind": "KIND_CPU", **limits}, {"kind": "KIND_CPU"}]
    first, second, on_cpu, plain = expand(normalised(groups, target(["5", "7"])), ["5", "7"])
    assert first.resources == on_cpu.resources == (Resource("R", 0, 3), Resource("G", None, 1)), "the last one counts"
    assert second.resources == (Resource("R", 1, 3), Resource("G", None, 1))
    assert (plain.resources, plain.priority, first.priority) == ((), 1, 2)


def test_names_of_groups_are_kept() -> None:
    assert instances([{"name": "zz", "count": 2}, {}]) == [("zz_0", "", ""), ("zz_1", "", ""), ("m_1_0", "", "")]


@pytest.mark.parametrize(
    ("gpus", "listed", "kind"), [([], [], "KIND_CPU"), (["0"], [], "KIND_GPU"), (["0", "1"], [1], "KIND_GPU")]
)
def test_auto_is_a_gpu_where_there_is_one(gpus: list[str], listed: list[int], kind: str) -> None:
    (group,) = normalised([{"gpus": listed}], target(gpus))
    assert group["kind"] == kind


@pytest.mark.parametrize(
    ("backend", "gpus", "expected"),
    [
        ("python", [], ("KIND_CPU", 1)),
        ("python", ["0"], ("KIND_GPU", 1)),
        ("onnxruntime", [], ("KIND_CPU", 2)),
        ("onnxruntime", ["0"], ("KIND_GPU", 1)),
        ("tensorflow", [], ("KIND_CPU", 2)),
        ("openvino", ["0"], ("KIND_CPU", 1)),
        ("identity", ["0"], ("KIND_CPU", 1)),
    ],
)
def test_a_model_without_groups_gets_one_with_its_own_name(
    backend: str, gpus: list[str], expected: tuple[str, int]
) -> None:
    of = target(gpus, backend)
    group = normalise_group(default_group(of, EMPTY), 0, of)
    assert (group["name"], group["kind"], group["count"]) == ("m", *expected)


@pytest.mark.parametrize(
    ("group", "gpus", "expected"),
    [
        ({"kind": "KIND_GPU"}, [], "instance group m_0 of model m has kind KIND_GPU but no GPUs are available"),
        (
            {"kind": "KIND_GPU", "gpus": [2]},
            ["0", "1"],
            "instance group m_0 of model m specifies invalid or unsupported gpu id 2. GPUs with at least the minimum "
            "required CUDA compute compatibility of 6.000000 are: 0, 1",
        ),
        (
            {"kind": "KIND_CPU", "gpus": [0]},
            ["0"],
            "instance group m_0 of model m has kind KIND_CPU but specifies one or more GPUs",
        ),
        (
            {"kind": "KIND_AUTO", "gpus": [0]},
            [],
            "instance group m_0 of model m has kind KIND_CPU but specifies one or more GPUs",
        ),
        (
            {"kind": "KIND_MODEL", "gpus": [0]},
            ["0"],
            "instance group m_0 of model m has kind KIND_MODEL but specifies one or more GPUs",
        ),
        (
            {"count": -1},
            [],
            f"instance group m_0 of model m has count -1, must be 1 to {MAX_COUNT} (0 means the default)",
        ),
        ({"count": MAX_COUNT + 1}, [], f"has count {MAX_COUNT + 1}, must be 1 to {MAX_COUNT}"),
        ({"profile": ["0"]}, [], "specifies profile field which is only supported for TensorRT models"),
    ],
)
def test_groups_that_cannot_be(group: dict[str, Any], gpus: list[str], expected: str) -> None:
    with pytest.raises(ValueError) as caught:
        normalised([group], target(gpus))
    assert expected in str(caught.value)


def test_instances_can_stand_in_for_each_other_when_only_name_and_count_differ() -> None:
    def signatures(group: dict[str, Any], gpus: Sequence[str] = ("0", "1")) -> set[str]:
        return {one.signature for one in expand(normalised([group], target(gpus)), gpus)}

    cpu = signatures({"kind": "KIND_CPU"})
    assert len(cpu) == 1
    assert signatures({"kind": "KIND_CPU", "count": 3, "name": "other"}) == cpu
    assert signatures({"kind": "KIND_CPU", "host_policy": "p"}) != cpu
    assert signatures({"kind": "KIND_MODEL"}) != cpu
    both = signatures({"kind": "KIND_GPU"})
    assert len(both) == 2
    assert signatures({"kind": "KIND_GPU", "gpus": [1]}) < both
