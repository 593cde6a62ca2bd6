"""A server's directory, its lock, and what is swept when its holder is dead."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker import runtime
from shm import region

LONG_AGO = (1.0, 1.0)


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where servers have their directories."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def server() -> Iterator[str]:
    """An id that no other server has, whose regions go after the test."""
    name = os.urandom(4).hex()
    yield name
    region.sweep(name)


def region_of(server: str) -> Path:
    path = region.DIRECTORY / region.name_for(server, "w1", 0)
    path.touch()
    return path


def test_a_claimed_directory_is_private_and_locked(base: Path) -> None:
    path, descriptor = runtime.claim("0a1b2c3d")
    assert path == runtime.directory_of("0a1b2c3d") == base / f"tidepool-{os.getuid()}-0a1b2c3d"
    assert path.stat().st_mode & 0o777 == 0o700
    other = os.open(path, os.O_RDONLY)
    with pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(other)
    with pytest.raises(FileExistsError):
        runtime.claim("0a1b2c3d")
    os.close(descriptor)


def test_a_living_server_is_left_alone(base: Path, server: str) -> None:
    path, descriptor = runtime.claim(server)
    os.utime(path, LONG_AGO)
    found = region_of(server)
    runtime.sweep_dead_servers()
    assert path.exists()
    assert found.exists()
    os.close(descriptor)


def test_what_a_dead_server_left_is_removed(base: Path, server: str) -> None:
    path, descriptor = runtime.claim(server)
    (path / "broker").touch()
    found = region_of(server)
    os.utime(path, LONG_AGO)
    os.close(descriptor)
    runtime.sweep_dead_servers()
    assert not path.exists()
    assert not found.exists()


def test_a_server_that_is_just_starting_is_left_alone(base: Path, server: str) -> None:
    path, descriptor = runtime.claim(server)
    os.close(descriptor)
    runtime.sweep_dead_servers()
    assert path.exists()


def test_other_names_are_no_servers(base: Path, server: str) -> None:
    _, descriptor = runtime.claim(server)
    found = region_of(server)
    for name in ("*", "[0-9a-f]*", "", f"{server}-", "..", server.upper() + "x"):
        path = base / f"tidepool-{os.getuid()}-{name}"
        path.mkdir()
        os.utime(path, LONG_AGO)
    runtime.sweep_dead_servers()
    assert found.exists(), "a living server's memory is gone"
    os.close(descriptor)


def test_links_are_not_followed(base: Path, server: str) -> None:
    precious = base / "precious"
    precious.mkdir()
    (precious / "file").touch()
    os.utime(precious, LONG_AGO)
    (base / f"tidepool-{os.getuid()}-{server}").symlink_to(precious)
    found = region_of(server)
    runtime.sweep_dead_servers()
    assert (precious / "file").exists()
    assert found.exists()


def test_ids_are_swept() -> None:
    assert runtime.new_id() != runtime.new_id()
    assert runtime._ID.fullmatch(runtime.new_id())
