"""Unpacking an environment's archive (conda-pack's, or any tar), so that nothing is written outside its directory."""

import os
import tarfile
from pathlib import Path

from workers.environments import EnvironmentFailed


def unpack(archive: Path, directory: Path) -> None:
    """Unpack a tar file, compressed or not, into a new directory. Raises EnvironmentFailed, OSError.

    Links are made last, symbolic ones after all others: no file is ever written through one.
    """
    directory.mkdir()
    hard: list[tarfile.TarInfo] = []
    symbolic: list[tarfile.TarInfo] = []
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                if member.issym():
                    symbolic.append(member)
                elif member.islnk():
                    hard.append(member)
                else:
                    tar.extract(_checked(member, archive), directory, set_attrs=member.isreg(), filter="tar")
    except (tarfile.TarError, EOFError) as error:
        raise EnvironmentFailed(f"{archive} cannot be unpacked: {error}") from error
    for link in hard:
        os.link(_inside(directory, link.linkname, archive), _place(directory, link, archive), follow_symlinks=False)
    for link in symbolic:
        os.symlink(link.linkname, _place(directory, link, archive))


def _checked(member: tarfile.TarInfo, archive: Path) -> tarfile.TarInfo:
    if not member.isreg() and not member.isdir():
        raise EnvironmentFailed(f"{archive} holds '{member.name}', which is neither a file nor a directory nor a link")
    _inside(Path(), member.name, archive)
    return member


def _place(directory: Path, link: tarfile.TarInfo, archive: Path) -> Path:
    """Where a link goes; no symbolic link may lead there."""
    place = _inside(directory, link.name, archive)
    if not place.parent.resolve().is_relative_to(directory.resolve()):
        raise _leaves(link.name, archive)
    place.parent.mkdir(parents=True, exist_ok=True)
    return place


def _inside(directory: Path, name: str, archive: Path) -> Path:
    path = os.path.normpath(name)
    if os.path.isabs(path) or path == ".." or path.startswith("../"):
        raise _leaves(name, archive)
    return directory / path


def _leaves(name: str, archive: Path) -> EnvironmentFailed:
    return EnvironmentFailed(f"{archive} holds '{name}', which leaves the directory that it is unpacked to")
