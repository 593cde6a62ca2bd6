"""Files that were checked before the model was described are checked again where they are loaded.

Between the two they may have changed: a worker may be started again long after.
"""

import hashlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from broker.messages import ErrorCode
from workers.errors import BackendError


def check(directory: Path, version: int, digests: Mapping[str, str]) -> None:
    """Compare the files that a worker of this version may load with their digests. Raises BackendError.

    Bytecode that lies beside a module has no digest: none is read or written from now on.
    """
    if digests:
        sys.pycache_prefix = os.devnull
    for name, expected in digests.items():
        first = name.partition("/")[0]
        if first.isdecimal() and first != str(version):
            continue
        algorithm, _, digest = expected.partition(":")
        try:
            with open(directory / name, "rb") as file:
                got = hashlib.file_digest(file, algorithm.lower()).hexdigest()
        except OSError as error:
            raise BackendError(ErrorCode.INVALID_ARG, f"{name} cannot be checked: {error.strerror}") from error
        if got != digest:
            text = f"Mismatched {algorithm} hash for file {name}, expect: {digest}, got: {got}"
            raise BackendError(ErrorCode.INVALID_ARG, text)
