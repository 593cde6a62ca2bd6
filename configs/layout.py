"""The layout of a model repository on disk: model directories, version directories, and what changes in them."""

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from configs.errors import ConfigError, one_line
from configs.namespaces import identifier
from configs.tree import Node

NOT_VERSIONS = {"warmup", "initial_state", "configs", "__pycache__"}
CONFIGURATIONS = {"config.pbtxt", "configs"}
"""What in a model's directory is its configuration, whose fields count one by one."""

_MODEL_FILES = (".onnx", ".pt", ".plan")
"""What model files end with that cannot be anything else."""

_VERSION = re.compile(r"0|[1-9][0-9]*")
_LARGEST_VERSION = 2**63 - 1
_SCRATCH = re.compile(r"\..*|.*~|.*\.(?:sw[a-z]|bak|tmp|part)|__pycache__|#.*#|4913")  # written by editors and Python


class Models(NamedTuple):
    """What the repositories hold: directories by model name, and why other names cannot be loaded."""

    directories: dict[str, Path]
    errors: dict[str, str]


def list_models(
    repositories: Sequence[Path], entries: Mapping[str, Node] | None = None, with_namespaces: bool = False
) -> Models:
    """The models of all repositories; files and hidden directories are none.

    A name in two repositories (unless these are namespaces), and an entry of model_config_list without a directory,
    are errors of that model. Raises ConfigError when a repository cannot be read.
    """
    found: dict[str, list[Path]] = {}
    for repository in repositories:
        for directory in _directories(repository):
            found.setdefault(directory.name, []).append(directory)
    if with_namespaces:
        found = {name: [path] for each in found.values() for name, path in _identified(each)}
    errors = {
        name: "model appears in two or more repositories: " + ", ".join(map(str, paths))
        for name, paths in found.items()
        if len(paths) > 1
    }
    errors |= {one_line(name): "the name of a model's directory must be UTF-8" for name in found if not _is_utf8(name)}
    for name, entry in (entries or {}).items():
        if name not in found:
            searched = ", ".join(map(str, repositories))
            errors[name] = f"{entry.at('name')}: there is no directory '{name}' in the model repository {searched}"
    directories = {n: paths[0] for n, paths in found.items() if len(paths) == 1 and _is_utf8(n)}
    return Models(directories, errors)


def _identified(directories: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    """The directories of one name with what their models are called."""
    for path in directories:
        yield path.name if len(directories) == 1 else identifier(path.parent, path.name), path


def version_directories(directory: Path) -> tuple[dict[int, Path], list[str]]:
    """The version directories of a model by number, ascending, and warnings about those that look like one."""
    versions: dict[int, Path] = {}
    warnings = []
    for path in _directories(directory):
        name = path.name
        if name in NOT_VERSIONS:
            continue
        if _VERSION.fullmatch(name) and int(name[:20]) <= _LARGEST_VERSION:
            versions[int(name)] = path
        elif re.fullmatch(r"0[0-9]+", name):
            warnings.append(f"ignore version directory '{name}' which contains leading zeros in its directory name")
        else:
            warnings.append(f"ignore version directory '{name}' which fails to convert to integral number")
    return dict(sorted(versions.items())), warnings


def is_model_file(name: str) -> bool:
    """Whether a file is taken for a model that needs no directories around it."""
    return name.endswith(_MODEL_FILES) and not name.startswith(".")


def fingerprint(directory: Path) -> str:
    """A digest that changes when a file below the directory is added, removed or written.

    Files that editors and Python leave behind do not count. Symbolic links are followed.
    """
    return _digest(_files(directory))


def files_fingerprint(directory: Path) -> str:
    """The same for all of a model's directory but its configuration."""
    return _digest(_files(directory, lambda name: name not in CONFIGURATIONS))


def files(directory: Path) -> list[str]:
    """The files below the directory, relative to it, but for those that editors and Python leave behind."""
    return [name for name, _ in _files(directory)]


def shared_fingerprint(directory: Path) -> str:
    """The same for what all versions of a model in `directory` share: its files but for versions and configurations."""
    return _digest(_files(directory, _is_shared))


def _is_shared(name: str) -> bool:
    """Whether an entry of a model's directory is part of what its versions share."""
    return not (_VERSION.fullmatch(name) or name in CONFIGURATIONS)


def _digest(files: Iterable[tuple[str, os.stat_result]]) -> str:
    digest = hashlib.sha256()
    for name, status in sorted(files, key=lambda file: file[0]):
        digest.update(f"{name}\0{status.st_mtime_ns}\0{status.st_size}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _files(directory: Path, wanted: Callable[[str], bool] = bool) -> Iterator[tuple[str, os.stat_result]]:
    """The files below a directory; of its own entries those that are `wanted`."""
    seen: set[tuple[int, int]] = set()  # directories, so that links cannot lead in a circle
    for root, directories, files in os.walk(directory, followlinks=True):
        try:
            status = os.stat(root)
        except FileNotFoundError:
            continue  # removed meanwhile
        if (status.st_dev, status.st_ino) in seen:
            directories.clear()
            continue
        if not seen:
            directories[:], files[:] = filter(wanted, directories), filter(wanted, files)
        seen.add((status.st_dev, status.st_ino))
        directories[:] = _kept(directories)
        for name in _kept(files):
            path = os.path.join(root, name)
            try:
                yield os.path.relpath(path, directory), os.stat(path)
            except FileNotFoundError:
                continue  # removed meanwhile, or a dangling link


def _kept(names: Iterable[str]) -> list[str]:
    return [name for name in names if not _SCRATCH.fullmatch(name)]


def _is_utf8(name: str) -> bool:
    return not any("\ud800" <= c <= "\udfff" for c in name)  # how Python keeps bytes that are not UTF-8


def _directories(parent: Path) -> list[Path]:
    try:
        with os.scandir(parent) as entries:
            names = sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    except OSError as error:
        raise ConfigError(f"{parent}: cannot be read: {error.strerror or error}") from error
    return [parent / name for name in names]
