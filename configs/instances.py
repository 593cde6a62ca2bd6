"""Instance groups: defaults, checks, and the instances (with the devices they see) that follow from them."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from configs.backend_settings import LIGHT
from configs.description import Instance, Resource
from configs.host_policy import default_name

MAX_COUNT = 1000  # every instance is a process: more than this is a slip of the pen

_ON_THE_CPU = ("openvino",)  # a parameter of the model names the device
_IN_PAIRS = ("onnxruntime", "tensorflow")  # two instances on the CPU where no count is given, as in Triton
_KEPT_OUT_OF_SIGNATURE = ("name", "count", "gpus")


class Target(NamedTuple):
    """The model that groups belong to, and the devices there are.

    `gpus` are CUDA_VISIBLE_DEVICES entries (indices or UUIDs); a group's `gpus` index this list.
    """

    model: str
    platform: str
    backend: str
    gpus: Sequence[str]
    min_compute_capability: float = 6.0


def default_group(target: Target, empty: dict[str, Any]) -> dict[str, Any]:
    """The group of a model that has none; it carries the model's own name."""
    kind = "KIND_CPU" if target.backend in LIGHT else "KIND_AUTO"
    return {**empty, "name": target.model, "kind": kind}


def normalise_group(group: dict[str, Any], index: int, target: Target) -> dict[str, Any]:
    """The group with name, kind, count and GPUs filled in. Raises ValueError."""
    group = {**group, "name": group["name"] or f"{target.model}_{index}"}
    if group["kind"] == "KIND_AUTO":
        there = (
            target.gpus
            and target.backend not in _ON_THE_CPU
            and all(0 <= gpu < len(target.gpus) for gpu in group["gpus"])
        )
        group["kind"] = "KIND_GPU" if there else "KIND_CPU"
    if group["count"] == 0:
        group["count"] = 2 if group["kind"] == "KIND_CPU" and target.backend in _IN_PAIRS else 1
    if group["kind"] == "KIND_GPU" and not group["gpus"]:
        group["gpus"] = list(range(len(target.gpus)))
    _check(group, target)
    return group


def expand(groups: Sequence[dict[str, Any]], gpus: Sequence[str]) -> tuple[Instance, ...]:
    """The instances of normalised groups: `count` of each, for KIND_GPU `count` on each GPU.

    Instances on different GPUs of one group have the same name, as in Triton.
    """
    return tuple(
        _instance(group, number, gpu, gpus[gpu] if group["kind"] == "KIND_GPU" else "")
        for group in groups
        for gpu in (group["gpus"] if group["kind"] == "KIND_GPU" else [0])
        for number in range(group["count"])
    )


def _instance(group: dict[str, Any], number: int, gpu: int, device: str) -> Instance:
    rest = {key: value for key, value in group.items() if key not in _KEPT_OUT_OF_SIGNATURE}
    return Instance(
        name=f"{group['name']}_{number}",
        kind=group["kind"],
        device=device,
        visible_devices=None if group["kind"] == "KIND_MODEL" else device,
        signature=json.dumps({**rest, "device": device}, sort_keys=True),
        resources=_resources(group, gpu),
        priority=max(1, group.get("rate_limiter", {}).get("priority", 0)),
        host_policy=group["host_policy"] or default_name(group["kind"], gpu),
    )


def _resources(group: dict[str, Any], gpu: int) -> tuple[Resource, ...]:
    """What the group's rate_limiter takes for an instance on this GPU; without one it counts as the first."""
    named = {(one["name"], one["global"]): one["count"] for one in group.get("rate_limiter", {}).get("resources", ())}
    return tuple(Resource(name, None if is_global else gpu, count) for (name, is_global), count in named.items())


def _check(group: dict[str, Any], target: Target) -> None:
    where = f"instance group {group['name']} of model {target.model}"
    kind, gpus = group["kind"], group["gpus"]
    if not 0 < group["count"] <= MAX_COUNT:
        raise ValueError(f"{where} has count {group['count']}, must be 1 to {MAX_COUNT} (0 means the default)")
    if kind == "KIND_GPU":
        _check_gpus(where, gpus, target)
    elif gpus:
        raise ValueError(f"{where} has kind {kind} but specifies one or more GPUs")
    if group["profile"]:
        raise ValueError(
            f"{where} and platform {target.platform} specifies profile field which is only supported for "
            "TensorRT models"
        )


def _check_gpus(where: str, gpus: Sequence[int], target: Target) -> None:
    if not target.gpus:
        raise ValueError(f"{where} has kind KIND_GPU but no GPUs are available")
    for gpu in gpus:
        if not 0 <= gpu < len(target.gpus):
            there = ", ".join(map(str, range(len(target.gpus))))
            raise ValueError(
                f"{where} specifies invalid or unsupported gpu id {gpu}. GPUs with at least the minimum required "
                f"CUDA compute compatibility of {target.min_compute_capability:f} are: {there}"
            )
