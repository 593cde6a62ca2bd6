"""Which requests the model is working on, so that what it prints and logs can say so.

Known in `execute`, in what it calls, and in coroutines that it starts; not in threads of the model's own.
"""

import io
from collections.abc import Sequence
from contextvars import ContextVar
from typing import TextIO

from broker.messages import Item

_SHOWN = 3
"""Ids of a batch that are shown."""
_MAX_ID = 64
"""Characters of an id that are shown: clients choose them."""

_requests: ContextVar[Sequence[Item]] = ContextVar("requests", default=())


def work_on(requests: Sequence[Item]) -> None:
    """The model begins to work on these requests, or (none) has returned."""
    _requests.set(requests)


def tag() -> str:
    """What goes in front of a line: `[request id: a] `; `""` where no client has given an id."""
    ids = [item.request_id for item in _requests.get() if item.request_id]
    if not ids:
        return ""
    shown = ", ".join(_printable(one) for one in ids[:_SHOWN])
    return f"[request id: {shown}{', ...' if len(ids) > _SHOWN else ''}] "


def _printable(text: str) -> str:
    """No client writes lines of its own into the log."""
    cut = text if len(text) <= _MAX_ID else f"{text[:_MAX_ID]}..."
    return "".join(c if c.isprintable() else "?" for c in cut)


class Tagged(io.TextIOWrapper):
    """A stream of text whose lines begin with `tag`."""

    _is_at_start = True

    def write(self, text: str) -> int:
        """Write what a model prints."""
        label = tag() if text else ""
        if label:
            lines = text.split("\n")
            first = label if self._is_at_start and lines[0] else ""
            rest = [f"\n{label if line else ''}{line}" for line in lines[1:]]
            super().write(f"{first}{lines[0]}{''.join(rest)}")
        else:
            super().write(text)
        self._is_at_start = text.endswith("\n") if text else self._is_at_start
        return len(text)


def tagged(stream: TextIO) -> TextIO:
    """What to write to instead of the standard output or error."""
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    return Tagged(stream.buffer, stream.encoding, stream.errors, line_buffering=True, write_through=True)
