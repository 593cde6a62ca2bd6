"""DLPack in and out of numpy arrays. What numpy cannot express (bfloat16, memory of a GPU) goes through torch."""

import sys
from importlib import import_module
from typing import Any

import numpy as np

from shm.tensor import datatype_of

CPU = (1, 0)
"""The DLPack protocol's (device type, device id) of the processor's memory."""


class DLPackError(ValueError):
    """A tensor that cannot be exchanged."""


class _Capsule:
    """A bare capsule, as an object of the protocol."""

    def __init__(self, capsule: object) -> None:
        self._capsule = capsule

    def __dlpack__(self, **_: object) -> object:
        return self._capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return CPU


def export_tensor(datatype: str, array: np.ndarray[Any, Any]) -> object:
    """A capsule over the array's memory; for BF16 the array holds bits. Raises DLPackError."""
    if datatype == "BYTES":
        raise DLPackError("DLPack does not have support for string tensors.")
    if datatype != "BF16":
        return np.ascontiguousarray(array).__dlpack__()
    try:
        torch = import_module("torch")
    except ModuleNotFoundError:
        raise DLPackError("BF16 tensors need torch: pip install 'tidepool[torch]'") from None
    capsule: object = torch.from_numpy(array.view(np.int16)).view(torch.bfloat16).__dlpack__()
    return capsule


def import_tensor(tensor: object) -> tuple[str, np.ndarray[Any, Any]]:
    """The datatype and the array (for BF16: of bits) of an object or capsule, without a copy. Raises DLPackError."""
    array = tensor if isinstance(tensor, np.ndarray) else _import(tensor)
    if isinstance(array, tuple):
        return array
    if not array.flags.c_contiguous:
        raise DLPackError(
            "DLPack tensor is not contiguous. Only contiguous DLPack tensors that are stored in C-Order are supported."
        )
    datatype = datatype_of(array.dtype)
    if datatype is None:
        raise DLPackError(f"DLPack tensors of type {array.dtype} are not supported.")
    return datatype, array


def _import(tensor: Any) -> np.ndarray[Any, Any] | tuple[str, np.ndarray[Any, Any]]:
    source: Any = tensor if hasattr(tensor, "__dlpack__") else _Capsule(tensor)
    try:
        array: np.ndarray[Any, Any] = np.from_dlpack(source)
        return array
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        torch = sys.modules.get("torch")
        if torch is None:
            raise DLPackError(f"DLPack tensor cannot be read: {error}") from None
        if isinstance(source, _Capsule):
            host = torch.utils.dlpack.from_dlpack(tensor).detach().cpu()
        else:
            host = torch.from_dlpack(tensor).detach().cpu()
        if host.dtype == torch.bfloat16:
            return "BF16", host.contiguous().view(torch.int16).numpy().view(np.uint16)
        from_torch: np.ndarray[Any, Any] = host.numpy()
        return from_torch
