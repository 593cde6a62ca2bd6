"""The environment that a Python model asks for: packages beside its configuration, or `EXECUTION_ENV_PATH`."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from configs.description import Environment
from configs.errors import ConfigError

EXECUTION_ENV_PATH = "EXECUTION_ENV_PATH"
PYTHON_VERSION = "python_version"
FILES = ("uv.lock", "pyproject.toml", "requirements.txt")
"""What may lie in a model's directory; the first that does counts."""

_ARCHIVE_OF_LIBRARY = "pb_exec_env_model.py.tar.gz"
_MODEL_DIRECTORY = "$$TRITON_MODEL_DIRECTORY"
_VERSION = re.compile(r"3\.[0-9]{1,2}(\.[0-9]{1,2})?")


def find(
    directory: Path, backend: str, parameters: Mapping[str, str], library: Path | None = None
) -> Environment | None:
    """What the model in `directory` runs in; None is the server's own. Raises ConfigError, OSError.

    `library` is the directory of its backend if that is Python-based: what lies there is for models that say nothing.
    """
    if library is not None:
        return find(directory, "python", parameters) or _of_library(library)
    if backend != "python":
        return None
    packed = parameters.get(EXECUTION_ENV_PATH, "")
    if packed:
        return _packed(packed.replace(_MODEL_DIRECTORY, str(directory)))
    version = parameters.get(PYTHON_VERSION, "")
    for name in FILES:
        if (directory / name).is_file():
            if version and not _VERSION.fullmatch(version):
                raise ConfigError(f"parameter '{PYTHON_VERSION}' must be a version such as 3.12, got '{version}'")
            stamp = "/".join(_stamp(directory / other) for other in FILES if (directory / other).is_file())
            return Environment("packages", str(directory / name), stamp, version)
    return None


def _of_library(directory: Path) -> Environment | None:
    archive = directory / _ARCHIVE_OF_LIBRARY
    return _packed(str(archive)) if archive.is_file() else find(directory, "python", {})


def _packed(text: str) -> Environment:
    try:
        path = os.path.realpath(text, strict=True)
    except (OSError, ValueError):
        raise ConfigError(f"Failed to get the canonical path for {text}.") from None
    return Environment("folder" if os.path.isdir(path) else "archive", path, _stamp(Path(path)))


def _stamp(path: Path) -> str:
    status = path.stat()
    return f"{status.st_mtime_ns}-{status.st_size}"
