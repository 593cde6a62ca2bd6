"""Weights that all instances of a model on this machine have in common: a copy of it in the form that sessions want.

ONNX Runtime reads the weights of a model into memory of the process's own, and rearranges many of them. Saved the way
it has rearranged them they are mapped in place of that: the file's pages are there once, whoever uses them.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import onnxruntime

from broker.messages import ErrorCode
from workers.backends.onnx_options import Plan
from workers.environments import EnvironmentFailed
from workers.environments.cache import Cache, default_root
from workers.errors import BackendError

_SAVING = {
    "session.optimized_model_external_initializers_file_name": "weights.bin",
    "session.optimized_model_external_initializers_min_size_in_bytes": "1024",
    "session.save_external_prepacked_constant_initializers": "1",
}
_ERRORS_ONLY = 3


def shared_copy(path: Path, planned: Plan, options: Any, cache: Cache | None = None) -> Path:
    """The model file to load in place of `path`, made at the first time; `options` are for making it, and are changed.

    It stays as long as this process lives. Raises BackendError.
    """
    try:
        cache = cache or Cache(default_root())
        key = f"onnx-{_digest(path, planned)[:24]}"
        return cache.obtain(key, str(path), lambda place: _save(path, options, planned, place)) / path.name
    except (OSError, EnvironmentFailed) as error:
        raise BackendError(
            ErrorCode.UNAVAILABLE,
            f"there is no place for the shared weights of '{path}', set XDG_CACHE_HOME to another: {error}",
        ) from None


def create(path: Path, options: Any, planned: Plan) -> Any:
    """A session, with the providers that are planned or none: never on others after a failure."""
    return onnxruntime.InferenceSession(str(path), options, providers=planned.providers, enable_fallback=0)


def _save(path: Path, options: Any, planned: Plan, place: Path) -> None:
    place.mkdir(mode=0o700)
    options.optimized_model_filepath = str(place / path.name)
    options.log_severity_level = _ERRORS_ONLY  # it warns that the file is for this kind of processor: so is its key
    for key, value in _SAVING.items():
        options.add_session_config_entry(key, value)
    create(path, options, planned)


def _digest(path: Path, planned: Plan) -> str:
    """Of all that decides what the copy is: the model's files, ONNX Runtime, the processor, the options."""
    parts = [str(path.resolve()), list(_stamps(path.parent)), onnxruntime.__version__, _processor(), list(planned)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _stamps(directory: Path) -> Iterable[tuple[str, int, int]]:
    for root, _, names in sorted(os.walk(directory)):
        for name in sorted(names):
            file = Path(root, name)
            status = file.stat()
            yield str(file.relative_to(directory)), status.st_size, status.st_mtime_ns


def _processor() -> list[str]:
    """What Linux says of the first processor, but for what changes while it runs."""
    first = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    return [line for line in first.splitlines() if line.startswith(("model", "vendor", "flags", "Features", "CPU"))]
