"""Tensors in .npz files, without pickle: what `python -m broker run` reads and writes, and what is recorded."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from shm.ref import TensorRef
from shm.tensor import binary_form, datatype_of

Array = np.ndarray[Any, Any]


class Unreadable(ValueError):
    """The file is not what it should be; the text says why."""


def load(path: Path) -> dict[str, Array]:
    """The arrays of a .npz file by name. Raises Unreadable, OSError."""
    try:
        with np.load(path, allow_pickle=False) as file:
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise Unreadable(f"{path} is no .npz file: numpy.savez makes one")
            return {name: file[name] for name in file.files}
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise Unreadable(f"{path} cannot be read as a .npz file without pickle: {error}") from None


def save(path: Path, arrays: Mapping[str, Array]) -> None:
    """What `numpy.savez` does, for any names. Arrays of `bytes` objects become numpy's `S`. Raises OSError."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            plain = array.astype(np.bytes_) if array.dtype == object else array
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, plain, allow_pickle=False)


def reference(name: str, array: Array, wanted: str = "") -> TensorRef:
    """The tensor as it goes into a message; `wanted` is the datatype that the model declares. Raises Unreadable."""
    if array.dtype.kind == "U":
        datatype: str | None = "BYTES"
    elif wanted == "BF16" and array.dtype == np.uint16:
        datatype = wanted  # numpy has none: its bits
    else:
        datatype = datatype_of(array.dtype)
    if datatype is None:
        raise Unreadable(f"input '{name}' has numpy's type {array.dtype}, which no datatype is for")
    data = bytes(binary_form(datatype, array))
    return TensorRef(name, datatype, array.shape, len(data), data)
