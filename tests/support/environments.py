"""Environments for tests, without a network: wheels made by hand, and archives of virtual environments."""

import sys
import tarfile
import venv
import zipfile
from pathlib import Path

WHEELS = "--no-index\n--find-links {directory}\n"
"""The head of a requirements.txt that takes packages from a directory only."""


def write_wheel(directory: Path, name: str, version: str, more: str = "") -> Path:
    """A package of one module: `VERSION` is its version, and `more` follows."""
    directory.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f'VERSION = "{version}"\n{more}',
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    wheel = directory / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        for path, text in files.items():
            file.writestr(path, text)
    return wheel


def requirements(wheels: Path, *lines: str) -> str:
    """A requirements.txt that needs no network."""
    return WHEELS.format(directory=wheels) + "".join(f"{line}\n" for line in lines)


def make_environment(directory: Path, module: str, text: str) -> Path:
    """A virtual environment with one module, as one installs it."""
    venv.create(directory, symlinks=True)
    site = directory / "lib" / f"python3.{sys.version_info[1]}" / "site-packages"
    (site / f"{module}.py").write_text(text)
    return directory


def pack(directory: Path, archive: Path) -> Path:
    """The archive that conda-pack makes of a directory."""
    with tarfile.open(archive, "w:gz") as tar:
        for path in sorted(directory.iterdir()):
            tar.add(path, path.name)
    return archive
