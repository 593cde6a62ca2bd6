"""The server's log: lines in glog's form, written without ever waiting for whoever reads them."""

import contextlib
import os
import stat
import sys
import time

_LIMIT = 1 << 20
"""Bytes kept for a reader that is slow; what comes on top is dropped and counted."""


class Log:
    """Writes lines to a descriptor that may be a pipe nobody reads."""

    def __init__(self, descriptor: int, levels: frozenset[str]) -> None:
        """`levels`: those of `IWEV` that are written."""
        self._descriptor = _nonblocking(descriptor)
        self._levels = levels
        self._pending = b""
        self._dropped = 0

    def line(self, level: str, text: str) -> None:
        """One log line: level, date, time, process id, text."""
        if level in self._levels:
            now = time.time()
            stamp = time.strftime("%m%d %H:%M:%S", time.localtime(now)) + f".{int(now % 1 * 1e6):06d}"
            self.write("".join(f"{level}{stamp} {os.getpid()} {part}\n" for part in text.splitlines() or [""]))

    def write(self, text: str) -> None:
        """Text as it stands (tables, what a model printed)."""
        data = text.encode("utf-8", "replace")
        if len(self._pending) + len(data) > _LIMIT:
            self._dropped += 1
            return
        self._pending += data
        self.flush()

    def flush(self) -> None:
        """Write what can be written now."""
        with contextlib.suppress(BlockingIOError):
            while self._pending:
                try:
                    written = os.write(self._descriptor, self._pending)
                except (BrokenPipeError, OSError) as error:
                    if isinstance(error, BlockingIOError):
                        raise
                    written = len(self._pending)
                self._pending = self._pending[written:]
        if self._dropped and not self._pending:
            dropped, self._dropped = self._dropped, 0
            self.line("W", f"{dropped} log lines were dropped: nobody read them")


def _nonblocking(descriptor: int) -> int:
    """A descriptor whose writes never block. The original stays as it is: others share its flags."""
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
        with contextlib.suppress(OSError):
            return os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    return descriptor


def is_terminal() -> bool:
    """Whether the log goes to a terminal."""
    return sys.stdout.isatty()
