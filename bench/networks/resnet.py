"""A network of the size of ResNet-50 (https://arxiv.org/abs/1512.03385), written once for every framework.

`resnet50` says which operations follow one another; the modules beside this one carry them out in their framework.
Batch normalisation is folded into the convolutions, as it is in networks that are served; the weights are random.
"""

from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

IMAGE = (3, 224, 224)
CLASSES = 1000
STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))
"""Channels inside the blocks of each stage, and how many blocks it has."""
EXPANSION = 4

Floats = npt.NDArray[np.float32]
T = TypeVar("T")


class Filter(NamedTuple):
    """A convolution's weights [out, in, size, size] and bias [out]; its padding keeps the size at stride 1."""

    weight: Floats
    bias: Floats
    stride: int

    @property
    def padding(self) -> int:
        return int(self.weight.shape[2]) // 2


class Operations(Protocol[T]):
    """What the network is made of, for values of one framework."""

    def conv(self, value: T, filters: Filter) -> T:
        """A convolution."""

    def relu(self, value: T) -> T:
        """The larger of it and 0."""

    def pool(self, value: T) -> T:
        """The largest of 3 x 3 at stride 2."""

    def add(self, left: T, right: T) -> T:
        """Their sum."""

    def mean(self, value: T) -> T:
        """The mean of each channel, as [batch, channels]."""

    def dense(self, value: T, weight: Floats, bias: Floats) -> T:
        """A fully connected layer with weights [out, in]."""


def resnet50(image: T, operations: Operations[T]) -> T:
    """FP32 [batch, 3, 224, 224] to FP32 [batch, 1000]; the same weights each time."""
    random = np.random.default_rng(0)

    def conv(value: T, channels: tuple[int, int], size: int, stride: int = 1, gain: float = 1.0) -> T:
        wide, narrow = channels
        scale = gain * np.sqrt(2 / (wide * size * size))
        weight = (random.standard_normal((narrow, wide, size, size)) * scale).astype(np.float32)
        return operations.conv(value, Filter(weight, np.zeros(narrow, np.float32), stride))

    value = operations.pool(operations.relu(conv(image, (IMAGE[0], 64), 7, stride=2)))
    wide = 64
    for stage, (narrow, blocks) in enumerate(STAGES):
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            inner = operations.relu(conv(value, (wide, narrow), 1))
            inner = operations.relu(conv(inner, (narrow, narrow), 3, stride))
            inner = conv(inner, (narrow, narrow * EXPANSION), 1, gain=0.3)
            short = value if block else conv(value, (wide, narrow * EXPANSION), 1, stride)
            value = operations.relu(operations.add(inner, short))
            wide = narrow * EXPANSION
    weight = (random.standard_normal((CLASSES, wide)) / np.sqrt(wide)).astype(np.float32)
    return operations.dense(operations.mean(value), weight, np.zeros(CLASSES, np.float32))
