"""A region: one named span of POSIX shared memory, made by its owner and mapped by its readers.

Plain `open` and `mmap`: `multiprocessing.shared_memory` would unlink other processes' regions on exit.
"""

import contextlib
import ctypes
import errno
import mmap
import os
from pathlib import Path

DIRECTORY = Path("/dev/shm")
PREFIX = "tidepool-"
PAGE = mmap.PAGESIZE
SLOTS = 4096
"""Blocks that can be out at the same time in one region."""
TABLE = SLOTS * 8
"""Bytes at the start of a region: per slot the generation that its reader is done with (u64)."""

_LARGEST = (1 << 63) - 1
_FALLOC_KEEP_SIZE, _FALLOC_PUNCH_HOLE = 1, 2
_libc = ctypes.CDLL(None, use_errno=True)


def name_for(server: str, owner: str, number: int) -> str:
    """Names carry the server's id, so that what a dead server left can be told and swept."""
    return f"{PREFIX}{server}-{owner}-{number}"


class Region:
    """A mapped region. `view` is its data (after the slot table); close() when no view of it is held."""

    def __init__(self, name: str, fd: int, size: int) -> None:
        """Map `size` data bytes of the open file `fd`, which the region takes over."""
        self.name = name
        self.size = size
        self._fd = fd
        self._map = mmap.mmap(fd, TABLE + size)
        self._table = memoryview(self._map)[:TABLE].cast("Q")
        self.view = memoryview(self._map)[TABLE:]

    @classmethod
    def create(cls, name: str, size: int) -> "Region":
        """Make a new sparse region of `size` bytes (rounded up to pages). Raises OSError.

        Its table has memory from the start: a store into it must not fail when there is none left (SIGBUS).
        """
        size = -(-size // PAGE) * PAGE
        if TABLE + size > _LARGEST:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), name)
        fd = os.open(DIRECTORY / name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(fd, TABLE + size)
            os.posix_fallocate(fd, 0, TABLE)
            return cls(name, fd, size)
        except BaseException:
            os.close(fd)
            unlink(name)
            raise

    @classmethod
    def open(cls, name: str) -> "Region":
        """Map a region that another process made. Raises OSError, ValueError for a foreign name."""
        if not name.startswith(PREFIX) or "/" in name:
            raise ValueError(f"'{name}' is not a region of ours")
        fd = os.open(DIRECTORY / name, os.O_RDWR | os.O_CLOEXEC)
        try:
            size = os.fstat(fd).st_size - TABLE
            if size < 0:
                raise ValueError(f"'{name}' is too short for a region")
            return cls(name, fd, size)
        except BaseException:
            os.close(fd)
            raise

    def private(self, offset: int, size: int) -> memoryview:
        """A copy-on-write mapping of a range: nobody else sees what is written to it. It goes with its last view."""
        begin = TABLE + offset
        first = begin // PAGE * PAGE
        access = mmap.PROT_READ | mmap.PROT_WRITE
        mapped = mmap.mmap(self._fd, begin + size - first, flags=mmap.MAP_PRIVATE, prot=access, offset=first)
        return memoryview(mapped)[begin - first :]

    def mark_done(self, slot: int, generation: int) -> None:
        """The reader's store: the block in `slot` may be used again."""
        self._table[slot] = generation

    def done(self, slot: int) -> int:
        """The generation that the reader of `slot` has marked done last."""
        return self._table[slot]

    def reserve(self, offset: int, size: int) -> None:
        """Back a range with memory now, so that writing it cannot fail. Raises OSError (ENOSPC)."""
        os.posix_fallocate(self._fd, TABLE + offset, size)

    def punch(self, offset: int, size: int) -> None:
        """Give a range's memory back to the system; it reads as zeros afterwards."""
        mode = _FALLOC_PUNCH_HOLE | _FALLOC_KEEP_SIZE
        if _libc.fallocate(self._fd, mode, ctypes.c_int64(TABLE + offset), ctypes.c_int64(size)) != 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))

    def close(self) -> bool:
        """Unmap. False when somebody still holds a view: try again later."""
        with contextlib.suppress(BufferError):
            self.view.release()
            self._table.release()
            self._map.close()
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1
            return True
        return False


def unlink(name: str) -> None:
    """Remove a region's name; mappings stay until they are closed."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(DIRECTORY / name)


def sweep(server: str) -> list[str]:
    """Remove every region of the server with this id (which has to be dead). Returns their names."""
    names = names_of(server, "*")
    for name in names:
        unlink(name)
    return names


def names_of(server: str, owner: str) -> list[str]:
    """The regions that a process has made, announced or not; owner `*` is all of the server's."""
    return [path.name for path in DIRECTORY.glob(f"{PREFIX}{server}-{owner}-*")]


def free_bytes() -> tuple[int, int]:
    """(free, total) bytes of the file system that holds the regions."""
    stat = os.statvfs(DIRECTORY)
    return stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize
