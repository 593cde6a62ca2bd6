"""`backend_config`: settings of backends by key, and the sizes of shared memory that follow from them."""

import re
from collections.abc import Iterable, Mapping

BackendSettings = Mapping[str, Mapping[str, str]]  # by backend, `""` holds for all; then by key

BACKENDS = (
    "identity",
    "onnxruntime",
    "openvino",
    "python",
    "pytorch",
    "repeat",
    "sequence",
    "square",
    "tensorflow",
    "tensorrt",
)
"""Those there are."""
LIGHT = frozenset({"identity", "repeat", "sequence", "square"})
"""Backends that compute nothing: their models run on the CPU unless they say otherwise, and do not count there."""
MIB = 1 << 20
_FORMAT = "--backend-config option format is '<backend name>,<setting>=<value>'. Got"

_SHM_DEFAULT = ("shm-default-byte-size", "shm-default-size")
_SHM_GROWTH = ("shm-growth-byte-size",)
_SHM_MAX = ("shm-max-byte-size",)
_DEFAULT_BATCH = "default-max-batch-size"
_THREADS = ("intra_op_thread_count", "inter_op_thread_count")
_READ_BY_WORKERS = (
    "allow-soft-placement",
    "enable-global-threadpool",
    "gpu-memory-fraction",
    "plugins",
    "version-compatible",
)
USED = {*_SHM_DEFAULT, *_SHM_GROWTH, *_SHM_MAX, *_READ_BY_WORKERS, _DEFAULT_BATCH, *_THREADS}

# Triton's own keys that mean nothing in this server.
_WITHOUT_EFFECT = {
    "additional-dependency-dirs",
    "auto-complete-config",
    "coalesce-request-input",
    "enable-memory-tracker",
    "execution-policy",
    "min-compute-capability",
    "release_after_unload",
    "shm-region-prefix-name",
    "shm_message_queue_size",
    "stub-timeout-seconds",
    "thread-pool-size",
    "version",
}


def parse_flag(text: str) -> tuple[str, str, str]:
    """`backend,key=value` or `key=value` as (backend or `""`, key, value). Raises ValueError."""
    backend, comma, rest = text.partition(",")
    if not comma:
        backend, rest = "", text
    elif not backend:
        raise ValueError(f"No backend specified. {_FORMAT} {text}")
    key, equals, value = rest.partition("=")
    if not (equals and key and value):
        raise ValueError(f"{_FORMAT} {text}")
    return backend, key, value


def notes(settings: BackendSettings, python_based: Iterable[str] = ()) -> list[str]:
    """Warnings about keys, and names of backends, that have no effect."""
    known = {"", *BACKENDS, *python_based}
    lines = [f"backend_config: there is no backend '{name}' here" for name in settings if name not in known]
    for backend, keys in settings.items():
        for key in keys.keys() - USED:
            shown = f"{backend},{key}" if backend else key
            why = "has no effect here" if key in _WITHOUT_EFFECT else "is not known, it has no effect"
            lines.append(f"backend_config: '{shown}' {why}")
    return sorted(lines)


def problems(settings: BackendSettings) -> list[str]:
    """What is wrong with values that this server uses, one line each."""
    lines = []
    for backend in {"": {}, **settings}:
        try:
            shm_sizes(settings, backend)
        except ValueError as error:
            lines.append(f"backend_config: {backend + ',' if backend else ''}{error}")
    for backend, keys in settings.items():
        for key in (_DEFAULT_BATCH, *_THREADS):
            if not re.fullmatch(r"-?[0-9]{1,9}", keys.get(key, "0")):
                shown = f"{backend},{key}" if backend else key
                lines.append(f"backend_config: {shown} is '{keys[key]}', expected a number such as 4")
    return list(dict.fromkeys(lines))


def merged(settings: BackendSettings, backend: str) -> dict[str, str]:
    """What holds for a backend, by key."""
    return {key: value for scope in reversed(_scopes(backend)) for key, value in settings.get(scope, {}).items()}


def _scopes(backend: str) -> tuple[str, ...]:
    """Where a backend's settings are, those that win first. One that is not our own is Python-based."""
    return (backend, "") if backend in ("", *BACKENDS) else (backend, "python", "")


def shm_sizes(settings: BackendSettings, backend: str) -> tuple[int, int, int]:
    """(default, growth, max) bytes of an arena of a backend; max 0: no limit of its own.

    The backend's keys win over those for all backends, a Python-based one's also over those of `python`. Raises
    ValueError naming key and value.
    """
    scopes = [settings.get(scope, {}) for scope in _scopes(backend)]
    initial = _size(scopes, _SHM_DEFAULT, 64 * MIB)
    growth = _size(scopes, _SHM_GROWTH, 64 * MIB)
    limit = _size(scopes, _SHM_MAX, 0)
    if 0 < limit < initial:
        raise ValueError(f"{_SHM_MAX[0]} ({limit}) is less than {_SHM_DEFAULT[0]} ({initial})")
    return initial, growth, limit


def _size(scopes: Iterable[Mapping[str, str]], spellings: tuple[str, ...], default: int) -> int:
    for scope in scopes:
        given = {key: scope[key] for key in spellings if key in scope}
        if len(set(given.values())) > 1:
            raise ValueError(" and ".join(f"{k} '{v}'" for k, v in given.items()) + " disagree: give one of them")
        for key, value in given.items():
            return _bytes(key, value)
    return default


def _bytes(key: str, value: str) -> int:
    if not re.fullmatch(r"[0-9]+(_[0-9]+)*", value) or len(value) > 24:
        raise ValueError(f"{key} is '{value}', expected a number of bytes such as 67108864")
    size = int(value)
    if not MIB <= size < 1 << 63 and not (size == 0 and key in _SHM_MAX):
        raise ValueError(f"{key} is {value}, must be at least {MIB} (1 MiB)")
    return size
