"""Regions: made by one, mapped by others, reserved and punched, closed when nobody looks any more."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from shm import region
from shm.region import DIRECTORY, PAGE, PREFIX, SLOTS, TABLE, Region, name_for, names_of, sweep, unlink


@pytest.fixture
def server() -> Iterator[str]:
    """An id of our own; its regions go after the test."""
    name = os.urandom(4).hex()
    yield name
    sweep(name)


def blocks(name: str) -> int:
    """Bytes of memory behind a region."""
    return (DIRECTORY / name).stat().st_blocks * 512


def test_names_carry_server_and_owner(server: str) -> None:
    assert name_for("0a", "w3", 7) == "tidepool-0a-w3-7"
    for owner, number in (("w1", 0), ("w1", 1), ("w12", 0)):
        Region.create(name_for(server, owner, number), PAGE).close()
    assert sorted(names_of(server, "w1")) == [name_for(server, "w1", 0), name_for(server, "w1", 1)]
    assert len(sweep(server)) == 3
    assert names_of(server, "*") == []


def test_a_new_region_is_private_sparse_and_whole_pages(server: str) -> None:
    made = Region.create(name_for(server, "w1", 0), 10 * PAGE + 1)
    status = (DIRECTORY / made.name).stat()
    assert made.size == len(made.view) == 11 * PAGE
    assert status.st_size == TABLE + made.size
    assert status.st_mode & 0o777 == 0o600
    assert blocks(made.name) == TABLE, "only the table has memory: marking a block done must never fail"
    assert made.close()


def test_a_name_is_used_once(server: str) -> None:
    made = Region.create(name_for(server, "w1", 0), PAGE)
    with pytest.raises(FileExistsError):
        Region.create(made.name, PAGE)
    assert (DIRECTORY / made.name).exists(), "and the first one stays"
    made.close()


@pytest.mark.parametrize("size", [1 << 62, 1 << 63, 1 << 70])
def test_a_region_that_cannot_be_made_leaves_no_name(server: str, size: int) -> None:
    name = name_for(server, "w1", 0)
    with pytest.raises(OSError):
        Region.create(name, size)
    assert not (DIRECTORY / name).exists()


def test_readers_see_what_the_owner_writes_and_the_owner_what_they_have_done(server: str) -> None:
    owner = Region.create(name_for(server, "w1", 0), 4 * PAGE)
    reader = Region.open(owner.name)
    assert reader.size == owner.size
    owner.view[5:10] = b"hello"
    assert bytes(reader.view[5:10]) == b"hello"
    assert owner.done(SLOTS - 1) == 0
    reader.mark_done(SLOTS - 1, 2**64 - 1)
    assert owner.done(SLOTS - 1) == 2**64 - 1
    assert bytes(owner.view[:5]) == bytes(5), "the table is not part of the data"
    assert reader.close()
    assert owner.close()


@pytest.mark.parametrize("name", ["passwd", "../../etc/passwd", f"{PREFIX}../x", f"/dev/shm/{PREFIX}x", ""])
def test_foreign_names_are_not_opened(name: str) -> None:
    with pytest.raises(ValueError, match="not a region of ours"):
        Region.open(name)


def test_a_region_that_is_gone_is_an_os_error(server: str) -> None:
    with pytest.raises(FileNotFoundError):
        Region.open(name_for(server, "w1", 0))


def test_what_is_no_region_is_not_mapped(server: str, tmp_path: Path) -> None:
    for size in (0, 12, TABLE - 8):
        path = DIRECTORY / name_for(server, "w1", size)
        path.write_bytes(bytes(size))
        before = os.listdir("/proc/self/fd")
        with pytest.raises(ValueError):
            Region.open(path.name)
        assert os.listdir("/proc/self/fd") == before


def test_memory_is_reserved_and_returned(server: str) -> None:
    made = Region.create(name_for(server, "w1", 0), 100 * PAGE)
    made.reserve(10 * PAGE, 20 * PAGE)
    assert blocks(made.name) == TABLE + 20 * PAGE
    made.view[10 * PAGE : 30 * PAGE] = b"x" * 20 * PAGE
    made.punch(15 * PAGE, 5 * PAGE)
    assert blocks(made.name) == TABLE + 15 * PAGE
    assert bytes(made.view[15 * PAGE : 20 * PAGE]) == bytes(5 * PAGE)
    assert made.view[20 * PAGE] == ord("x")
    made.close()


def test_a_private_mapping_is_written_without_anybody_seeing(server: str) -> None:
    made = Region.create(name_for(server, "w1", 0), 4 * PAGE)
    made.view[PAGE + 5 : PAGE + 10] = b"hello"
    mine = made.private(PAGE + 5, 5)
    mine[0] = ord("J")
    assert bytes(mine) == b"Jello"
    assert bytes(made.view[PAGE + 5 : PAGE + 10]) == b"hello"
    assert made.close(), "a private mapping does not hold the region"
    assert bytes(mine) == b"Jello"


def test_a_region_is_unmapped_when_the_last_view_is_gone(server: str) -> None:
    made = Region.create(name_for(server, "w1", 0), 4 * PAGE)
    view = made.view[:10]
    assert not made.close()
    assert not made.close()
    assert bytes(view) == bytes(10)
    view.release()
    before = len(os.listdir("/proc/self/fd"))
    assert made.close()
    assert made.close(), "once more does no harm"
    assert len(os.listdir("/proc/self/fd")) == before - 2


def test_unlinking_what_is_gone_is_no_error(server: str) -> None:
    unlink(name_for(server, "w1", 0))


def test_the_size_of_the_file_system() -> None:
    free, total = region.free_bytes()
    assert 0 <= free <= total
