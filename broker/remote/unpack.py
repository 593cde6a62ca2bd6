"""Unpacking an archive of a repository: files and directories below its own place, nothing else."""

import shutil
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from broker.remote.errors import RemoteError
from broker.remote.plan import is_safe


def unpack(archive: Path, name: str, directory: Path) -> None:
    """Unpack a zip or tar file into a new directory; `name` says which it is. Raises RemoteError, OSError."""
    directory.mkdir(parents=True)
    try:
        if name.endswith(".zip"):
            with zipfile.ZipFile(archive) as opened:
                for path, content in _zipped(opened):
                    _put(directory, path, content)
        else:
            with tarfile.open(archive) as tar:
                for path, content in _tarred(tar):
                    _put(directory, path, content)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise RemoteError(f"'{name}' cannot be unpacked: {error}") from None
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise RemoteError(f"'{name}' has two things at one place: {error.filename}") from None


def _zipped(opened: zipfile.ZipFile) -> Iterator[tuple[str, IO[bytes] | None]]:
    for member in opened.infolist():
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
            raise _refused(member.filename)
        if member.is_dir():
            yield member.filename, None
        else:
            with opened.open(member) as content:
                yield member.filename, content


def _tarred(tar: tarfile.TarFile) -> Iterator[tuple[str, IO[bytes] | None]]:
    for member in tar:
        if not (member.isreg() or member.isdir()):
            raise _refused(member.name)
        yield member.name, tar.extractfile(member) if member.isreg() else None


def _put(directory: Path, path: str, content: IO[bytes] | None) -> None:
    parts = [part for part in path.split("/") if part not in {"", "."}]
    if path.startswith("/") or not all(map(is_safe, parts)):
        raise RemoteError(f"the archive holds '{path}', which is no path below the repository")
    place = directory.joinpath(*parts)
    if content is None:
        place.mkdir(parents=True, exist_ok=True)
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.open("xb") as file:
        shutil.copyfileobj(content, file, 1 << 20)


def _refused(name: str) -> RemoteError:
    return RemoteError(f"the archive holds '{name}', which is neither a file nor a directory")
