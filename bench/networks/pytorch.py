"""TorchScript files in PyTorch."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from bench.networks.resnet import IMAGE, Filter, Floats, resnet50


class Eager:
    """Values are tensors."""

    def conv(self, value: torch.Tensor, filters: Filter) -> torch.Tensor:
        weight, bias = torch.from_numpy(filters.weight), torch.from_numpy(filters.bias)
        return functional.conv2d(value, weight, bias, filters.stride, filters.padding)

    def relu(self, value: torch.Tensor) -> torch.Tensor:
        return value.relu()

    def pool(self, value: torch.Tensor) -> torch.Tensor:
        return functional.max_pool2d(value, 3, 2, 1)

    def add(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return left + right

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        return value.mean((2, 3))

    def dense(self, value: torch.Tensor, weight: Floats, bias: Floats) -> torch.Tensor:
        return functional.linear(value, torch.from_numpy(weight), torch.from_numpy(bias))


class Network(torch.nn.Module):  # type: ignore[misc]  # PyTorch is not there where types are checked
    """What is traced."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return resnet50(image, Eager())


def write_resnet50(path: Path) -> None:
    """The network as a frozen trace."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # that the weights become constants: they shall
        traced = torch.jit.trace(Network().eval(), torch.zeros(1, *IMAGE), check_trace=False)
    torch.jit.save(torch.jit.freeze(traced), str(path))


def load(file: Path, batch: Floats) -> Callable[[], Any]:
    """One execution."""
    torch.set_num_threads(1)
    module, given = torch.jit.load(str(file)).eval(), torch.from_numpy(batch)

    def execute() -> Any:
        with torch.inference_mode():
            return module(given).numpy()

    return execute
