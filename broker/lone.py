"""Model files without a repository around them: a directory of links makes them one.

`--model-repository` may be a model file, or a directory in which model files lie and no models. What Triton would serve
nothing of is served under the names of the files; a file called `model.onnx` has the name of its directory.
"""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from configs.layout import is_model_file

VERSION = "1"


def repository(path: Path, scratch: Path) -> Path:
    """The model repository that is meant by `path`: itself, or links below `scratch` to the model files that it means.

    Raises OSError.
    """
    is_file = path.is_file()
    directory = path.parent if is_file else path
    try:
        entries = _entries(directory)
    except OSError:
        return path  # who reads it as a repository will say why not
    if not is_file and any(is_directory and not name.startswith(".") for name, is_directory in entries):
        return path
    names = [name for name, is_directory in entries if not is_directory]
    found = models(directory, [path.name] if is_file else [*filter(is_model_file, names)], names)
    if not found:
        return path
    root = scratch / "lone" / hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    _link(root, found)
    return root


def models(directory: Path, files: Iterable[str], beside: Iterable[str]) -> dict[str, dict[str, Path]]:
    """By the names of models, the files of each: the model file under its backend's name for it, and what goes with it.

    That is whatever else is in `beside` (the names in the directory) and begins with the same word, such as weights.
    """
    found: dict[str, dict[str, Path]] = {}
    for file in files:
        stem, suffix = os.path.splitext(file)
        name = (directory.name if stem == "model" else "") or stem
        others = {other for other in beside if other != file and other.startswith((f"{stem}.", f"{stem}_"))}
        links = {other: directory / other for other in others if not is_model_file(other)}
        found[f"{name}{suffix}" if name in found else name] = {**links, f"model{suffix}": directory / file}
    return found


def _link(root: Path, found: dict[str, dict[str, Path]]) -> None:
    """Make the directory what it has to be; what is right already is left alone."""
    root.mkdir(parents=True, exist_ok=True)
    for name in _names(root):
        if name not in found:
            shutil.rmtree(root / name)
    for name, links in found.items():
        version = root / name / VERSION
        version.mkdir(parents=True, exist_ok=True)
        for stale in {*_names(version)} - links.keys():
            (version / stale).unlink()
        for link, target in links.items():
            with contextlib.suppress(FileExistsError):
                os.symlink(target, version / link)


def _names(directory: Path) -> list[str]:
    return [name for name, _ in _entries(directory)]


def _entries(directory: Path) -> list[tuple[str, bool]]:
    """The names in a directory, sorted, and whether each is a directory."""
    with os.scandir(directory) as entries:
        return sorted((entry.name, entry.is_dir()) for entry in entries)
