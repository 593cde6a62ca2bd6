"""Where a model computes, and the way of tensors there and back. A worker sees at most the one GPU that is its own."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from broker.messages import ErrorCode
from workers.errors import BackendError
from workers.model import ModelSpec


class Plan(NamedTuple):
    """The device, "" where the model chooses; whether tensors go by way of pinned memory, which a GPU reads itself."""

    device: str
    pins_inputs: bool = False
    pins_outputs: bool = False

    @property
    def location(self) -> str | None:
        """What loaders call `map_location`."""
        return self.device or None


def plan(model: ModelSpec, has_cuda: bool) -> Plan:
    """What the instance's kind and `optimization` ask for. Raises BackendError."""
    if model.kind == "CPU":
        return Plan("cpu")
    if model.kind == "GPU" and not has_cuda:
        raise BackendError(
            ErrorCode.INVALID_ARG,
            f"instance '{model.instance}' has kind KIND_GPU but no GPUs are available to PyTorch {torch.__version__}",
        )
    optimization = model.config.get("optimization", {})
    pins = [
        has_cuda and bool(optimization.get(key, {}).get("enable", True))
        for key in ("input_pinned_memory", "output_pinned_memory")
    ]
    return Plan("cuda:0" if model.kind == "GPU" else "", *pins)


def to_device(value: Any, device: str, pins: bool) -> Any:
    """A tensor where the model computes; with `pins` the copy goes on while the next one begins."""
    if device in ("", "cpu") or not isinstance(value, torch.Tensor):
        return value
    return value.pin_memory().to(device, non_blocking=True) if pins else value.to(device)


def to_host(values: Sequence[Any], pins: bool) -> list[Any]:
    """Results in the processor's memory, and there when this returns."""
    if all(not isinstance(value, torch.Tensor) or value.device.type == "cpu" for value in values):
        return list(values)
    found = [_copy(value, pins) for value in values]
    if pins:
        torch.cuda.synchronize()
    return found


def _copy(value: Any, pins: bool) -> Any:
    if not isinstance(value, torch.Tensor) or value.device.type == "cpu":
        return value
    target = torch.empty_like(value, device="cpu", memory_format=torch.contiguous_format, pin_memory=pins)
    return target.copy_(value, non_blocking=pins)
