"""The weights of a class, mapped from their file: all processes of the machine share its pages."""

import zipfile
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from broker.messages import ErrorCode
from workers.errors import BackendError

SUFFIXES = (".safetensors", ".pt")
"""Of files beside a class, the first one that there is."""


def beside(path: Path) -> Path | None:
    """The file with the weights of the class in `path`: of the same name but for its end."""
    return next((file for file in map(path.with_suffix, SUFFIXES) if file.exists()), None)


def load(module: torch.nn.Module, path: Path) -> None:
    """Let the parameters and buffers of a module be those in the file; raises what PyTorch raises."""
    with torch.no_grad():
        module.load_state_dict(_read(path), assign=True)


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        try:
            return import_module("safetensors.torch").load_file(path)
        except ModuleNotFoundError:
            raise BackendError(
                ErrorCode.UNAVAILABLE, f"'{path}' needs the package 'safetensors': pip install 'tidepool[torch]'"
            ) from None
    # The form without a ZIP archive, which PyTorch wrote before 1.6, cannot be mapped.
    return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
