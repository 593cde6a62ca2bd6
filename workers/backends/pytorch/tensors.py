"""Tensors between numpy and torch, without a copy. Numpy has no bfloat16: such arrays hold bits."""

from typing import Any

import numpy as np
import torch

from workers.batching import Array

DATATYPES = {
    torch.bool: "BOOL",
    torch.uint8: "UINT8",
    torch.int8: "INT8",
    torch.int16: "INT16",
    torch.int32: "INT32",
    torch.int64: "INT64",
    torch.float16: "FP16",
    torch.bfloat16: "BF16",
    torch.float32: "FP32",
    torch.float64: "FP64",
}
SUPPORTED = frozenset(DATATYPES.values()) | {"BYTES"}


def to_torch(array: Array) -> Any:
    """A tensor over the array's memory; strings become a list."""
    if array.dtype == np.object_:
        return list(array.reshape(-1))
    if array.dtype == np.uint16:  # UINT16 is refused, so these are the bits of BF16
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def to_array(tensor: torch.Tensor) -> Array:
    """A tensor in the processor's memory as an array."""
    tensor = tensor.detach().contiguous()
    if tensor.dtype == torch.bfloat16:
        bits: Array = tensor.view(torch.int16).numpy()
        return bits.view(np.uint16)
    array: Array = tensor.resolve_conj().resolve_neg().numpy()
    return array
