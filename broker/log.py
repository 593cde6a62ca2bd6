"""The server's log: lines in glog's form, written without ever waiting for whoever reads them."""

import contextlib
import json
import os
import socket
import stat
import time
from collections.abc import Callable, Sequence

_WORDS = {"I": "info", "W": "warning", "E": "error", "V": "verbose"}
_LIMIT = 1 << 20
"""Bytes kept for a reader that is slow; what comes on top is dropped and counted."""


class Log:
    """Writes lines to a descriptor that may be a pipe nobody reads."""

    def __init__(self, descriptor: int) -> None:
        """Writes nothing but raw text before `configure`."""
        self._write_now, self._close = _writer(descriptor)
        self._levels: frozenset[str] = frozenset()
        self._form = "default"
        self._pending = bytearray()
        self._dropped = 0

    def configure(self, levels: frozenset[str], form: str) -> None:
        """Write these levels of `IWEV`, as `default` (glog's form), `ISO8601` or `json` lines."""
        self._levels = levels
        self._form = form

    def line(self, level: str, text: str) -> None:
        """One log line: level, date, time (UTC), process id, text."""
        if level in self._levels:
            now = time.time()
            parts = [text] if self._form == "json" else text.splitlines() or [""]
            self._write("".join(_formatted(self._form, level, now, part) for part in parts))

    def write(self, text: str) -> None:
        """Text as it stands (tables, what a model printed); in JSON a line of level I like any other."""
        self._write(_formatted("json", "I", time.time(), text.rstrip("\n")) if self._form == "json" else text)

    def printed(self, name: str, lines: Sequence[str]) -> None:
        """Lines that a child has printed."""
        texts = [f"[{name}] {line}" for line in lines]
        if self._form == "json":
            texts = [_formatted("json", "I", time.time(), text).rstrip("\n") for text in texts]
        self._write("".join(f"{text}\n" for text in texts))

    def close(self) -> None:
        """Write what can still be written, and nothing more."""
        self.flush()
        self._close()

    def _write(self, text: str) -> None:
        data = text.encode("utf-8", "replace")
        if len(self._pending) + len(data) > _LIMIT:
            self._dropped += text.count("\n")
            return
        self._pending += data
        self.flush()

    def flush(self) -> None:
        """Write what can be written now."""
        while self._pending:
            try:
                written = self._write_now(self._pending)
            except BlockingIOError:
                break
            except OSError:
                written = len(self._pending)  # nobody will ever read it
            del self._pending[:written]
        if self._dropped and not self._pending:
            dropped, self._dropped = self._dropped, 0
            self.line("W", f"{dropped} log lines were dropped: nobody read them")


def _writer(descriptor: int) -> tuple[Callable[[bytearray], int], Callable[[], None]]:
    """Writes what can be written at once, and an end to it. The descriptor stays as it is: others share its flags."""
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISSOCK(mode):
        connection = socket.socket(fileno=os.dup(descriptor))
        return lambda data: connection.send(data, socket.MSG_DONTWAIT), connection.close
    own = os.dup(descriptor)
    if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
        with contextlib.suppress(OSError):
            again = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.dup2(again, own, inheritable=False)
            os.close(again)
    return lambda data: os.write(own, data), lambda: os.close(own)


def _formatted(form: str, level: str, now: float, text: str) -> str:
    utc = time.gmtime(now)
    if form == "json":
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", utc) + f".{int(now % 1 * 1e6):06d}Z"
        return json.dumps({"time": stamp, "level": _WORDS[level], "pid": os.getpid(), "message": text}) + "\n"
    if form == "ISO8601":
        return f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', utc)} {level} {os.getpid()} {text}\n"
    return f"{level}{time.strftime('%m%d %H:%M:%S', utc)}.{int(now % 1 * 1e6):06d} {os.getpid()} {text}\n"
