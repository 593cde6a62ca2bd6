"""Digests of a model's files, computed once for each state of a file, and compared with what they should be."""

import hashlib
from functools import lru_cache
from pathlib import Path, PurePosixPath

from configs.errors import ConfigError

_HASHLIB = {"MD5": "md5", "SHA256": "sha256"}


def check(directory: Path, name: str, algorithm: str, expected: str) -> str:
    """A file of a model has the expected digest; the same as `MD5:...`. Raises ConfigError, OSError."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name:
        raise ConfigError(f"the path '{name}' of a file to be checked must stay within the model directory")
    status = (directory / path).stat()
    got = _digest(str(directory / path), algorithm, (status.st_ino, status.st_size, status.st_ctime_ns))
    if got != expected.lower():
        raise ConfigError(f"Mismatched {algorithm} hash for file {path}, expect: {expected}, got: {got}")
    return f"{algorithm}:{got}"


@lru_cache(maxsize=4096)
def _digest(file: str, algorithm: str, _state: tuple[int, int, int]) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, _HASHLIB[algorithm]).hexdigest()
