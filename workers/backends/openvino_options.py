"""The parameters of OpenVINO models. Pure; the texts are Triton's."""

import os
from pathlib import PurePath
from typing import Any, NamedTuple

from workers.backends.signature import refuse
from workers.errors import BackendError
from workers.model import ModelSpec

_HINTS = ("LATENCY", "THROUGHPUT", "CUMULATIVE_THROUGHPUT")
_PRECISIONS = ("F32", "F16", "BF16")


class Options(NamedTuple):
    """How a model is read and compiled; `properties` are OpenVINO's own."""

    device: str
    properties: dict[str, Any]
    extension: str  # a library with operators
    is_reshaped: bool  # to the dims of the configuration
    keeps_batch: bool  # as it is in the file
    pads_batch: bool  # to the size in the file


def read(model: ModelSpec) -> Options:
    """What the model's parameters say. Raises BackendError."""
    device = model.parameter("TARGET_DEVICE").upper() or "CPU"
    properties: dict[str, Any] = {}
    if device == "CPU" or model.parameter("INFERENCE_NUM_THREADS"):
        properties["INFERENCE_NUM_THREADS"] = _count(model, "INFERENCE_NUM_THREADS") or model.threads
    if model.parameter("COMPILATION_NUM_THREADS"):
        properties["COMPILATION_NUM_THREADS"] = _count(model, "COMPILATION_NUM_THREADS")
    if model.parameter("PERFORMANCE_HINT"):
        properties["PERFORMANCE_HINT"] = _choice(model, "PERFORMANCE_HINT", _HINTS)
    if model.parameter("NUM_STREAMS"):
        properties["NUM_STREAMS"] = _streams(model)
    if _is_yes(model, "HINT_BF16"):
        properties["INFERENCE_PRECISION_HINT"] = "bf16"
    if model.parameter("INFERENCE_PRECISION"):
        properties["INFERENCE_PRECISION_HINT"] = _choice(model, "INFERENCE_PRECISION", _PRECISIONS).lower()
    return Options(
        device=device,
        properties=properties,
        extension=_extension(model),
        is_reshaped=_is_yes(model, "RESHAPE_IO_LAYERS"),
        keeps_batch=_is_yes(model, "SKIP_OV_DYNAMIC_BATCHSIZE"),
        pads_batch=_is_yes(model, "ENABLE_BATCH_PADDING"),
    )


def _is_yes(model: ModelSpec, key: str) -> bool:
    return _choice(model, key, ("YES", "NO", "")) == "YES"


def _choice(model: ModelSpec, key: str, allowed: tuple[str, ...]) -> str:
    value = model.parameter(key)
    if value.upper() not in allowed:
        raise _wrong(key, "/".join(filter(None, allowed)), value)
    return value.upper()


def _count(model: ModelSpec, key: str) -> int:
    value = model.parameter(key)
    if value and not value.isdecimal():
        raise _wrong(key, "a non-negative number", value)
    return int(value or 0)


def _streams(model: ModelSpec) -> str:
    value = model.parameter("NUM_STREAMS").upper()
    if value not in {"AUTO", "NUMA"} and not value.isdecimal():
        raise _wrong("NUM_STREAMS", "AUTO/NUMA/<int_value>", model.parameter("NUM_STREAMS"))
    return value


def _extension(model: ModelSpec) -> str:
    """The path of a library, which must be one of the model's own files."""
    given = model.parameter("CPU_EXTENSION_PATH")
    if not given:
        return ""
    relative = PurePath(os.path.normpath(given))
    if relative.is_absolute() or relative.parts[:1] == ("..",):
        raise refuse(f"CPU_EXTENSION_PATH '{given}' of model '{model.name}' leaves the model directory")
    return str(model.directory / relative)


def _wrong(key: str, expected: str, value: str) -> BackendError:
    return refuse(f"expected the parameter '{key}' to be {expected}, got {value}")
