"""Infer a model's backend, platform and model file from whatever of them is given and from the files there are."""

from collections.abc import Container
from typing import NamedTuple

from configs.errors import nearest


class Kind(NamedTuple):
    """What runs a model: `platform` is the older name of some backends, `filename` is in the version directory."""

    platform: str
    backend: str
    filename: str


# In the order in which files decide.
_KINDS = (
    Kind("tensorflow_savedmodel", "tensorflow", "model.savedmodel"),
    Kind("tensorflow_graphdef", "tensorflow", "model.graphdef"),
    Kind("tensorrt_plan", "tensorrt", "model.plan"),
    Kind("onnxruntime_onnx", "onnxruntime", "model.onnx"),
    Kind("", "openvino", "model.xml"),
    Kind("pytorch_libtorch", "pytorch", "model.pt"),
    Kind("torch_aoti", "pytorch", "model.pt2"),
    Kind("", "python", "model.py"),
)
_BY_PLATFORM = {kind.platform: kind for kind in _KINDS if kind.platform}
_SAME_PLATFORM = {"pytorch": "pytorch_libtorch"}  # where no file says another
_STRICT_BACKENDS = {kind.backend for kind in _KINDS if kind.platform}


def infer(model: str, given: Kind, files: Container[str]) -> Kind:
    """Complete what is `given` (`""`: not given); `files` are the names in one version directory.

    Raises ValueError when the backend cannot be told, or platform and backend contradict each other.
    """
    if given.platform in _SAME_PLATFORM and given.backend in ("", given.platform):
        given = given._replace(platform="", backend=given.platform)
    given = given._replace(platform=_SAME_PLATFORM.get(given.platform, given.platform))
    found = _complete(model, given, files)
    if not found.backend:
        hint = nearest(given.platform, [*_BY_PLATFORM, *_SAME_PLATFORM])
        raise ValueError(f"unexpected platform type '{given.platform}' for {model}{hint}")
    if found.backend in _STRICT_BACKENDS and found.platform:
        kind = _BY_PLATFORM.get(found.platform)
        if kind is None or kind.backend != found.backend:
            raise ValueError(f"unexpected 'platform' and 'backend' pair, got:{found.platform}, {found.backend}")
    return found


def _complete(model: str, given: Kind, files: Container[str]) -> Kind:
    if given.platform in _BY_PLATFORM:
        kind = _BY_PLATFORM[given.platform]
        return Kind(given.platform, given.backend or kind.backend, given.filename or kind.filename)
    if given.backend:
        return _complete_backend(given, files)
    if given.platform:
        return given
    for kind in _KINDS:
        if kind.filename == given.filename or (kind.filename in files and not given.filename):
            return kind
    _, dot, backend = model.partition(".")
    if dot and backend and not given.filename:
        return Kind("", backend, f"model.{backend}")
    raise ValueError(
        f"Invalid model name: Could not determine backend for model '{model}' with no backend in model "
        "configuration. Expected model name of the form 'model.<backend_name>'."
    )


def _complete_backend(given: Kind, files: Container[str]) -> Kind:
    kinds = [kind for kind in _KINDS if kind.backend == given.backend]
    if len(kinds) > 1:
        kinds = (
            [kind for kind in kinds if kind.filename == given.filename]
            or [kind for kind in kinds if kind.filename in files]
            or [kind for kind in kinds if kind.platform == _SAME_PLATFORM.get(given.backend)]
        )
    if not kinds:
        return given
    return Kind(given.platform or kinds[0].platform, given.backend, given.filename or kinds[0].filename)
