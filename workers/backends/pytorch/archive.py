"""What a model file is, by what lies in it: PyTorch writes them all as ZIP archives, whatever their name ends in."""

import struct
import zipfile
from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import NamedTuple

_LOCAL_HEADER = struct.Struct("<26xHH")
"""Of a ZIP archive's entry: the lengths of its name and of its extra field, which end before the data."""

_OLDER = "serialized_exported_program.json"  # before PyTorch 2.7


class Format(Enum):
    """What a model file holds."""

    SCRIPT = "TorchScript"
    EXPORTED = "an exported program"
    COMPILED = "a compiled package"
    PICKLED = "a state dict or another pickled object"
    CLASS = "a class"


class Record(NamedTuple):
    """Bytes of the file that lie in it as they are."""

    offset: int
    byte_size: int


def identify(names: Iterable[str]) -> Format | None:
    """By the names in an archive, each below a directory; None: none of PyTorch's."""
    names = list(names)
    inner = [name.partition("/")[2] for name in names]
    if any(name.startswith("data/aotinductor/") for name in inner):
        return Format.COMPILED
    if any(name.startswith("models/") and name.endswith(".json") for name in inner) or _OLDER in names:
        return Format.EXPORTED
    if "constants.pkl" in inner:
        return Format.SCRIPT
    return Format.PICKLED if "data.pkl" in inner else None


def found_in(path: Path) -> Format | None:
    """What a file holds; None: no archive, or none of PyTorch's."""
    try:
        with zipfile.ZipFile(path) as archive:
            return identify(archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return None


def format_of(path: Path) -> Format:
    """What to load a file as: one that cannot be read, as what its name says, whose loader can say what is wrong."""
    if path.suffix == ".py":
        return Format.CLASS
    by_name = Format.EXPORTED if path.suffix == ".pt2" else Format.SCRIPT
    found = found_in(path)
    if found is None or (found == Format.PICKLED and by_name == Format.EXPORTED):
        return by_name  # what is left of an exported program may end with the archive of its example inputs
    return found


def records(path: Path) -> list[Record]:
    """Where the uncompressed entries of an archive lie."""
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        found = []
        for entry in archive.infolist():
            if entry.compress_type != zipfile.ZIP_STORED or not entry.file_size:
                continue
            file.seek(entry.header_offset)
            name, extra = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
            found.append(Record(entry.header_offset + _LOCAL_HEADER.size + name + extra, entry.file_size))
        return found
