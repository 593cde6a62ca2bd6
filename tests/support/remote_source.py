"""A remote repository in memory, with the faults that real ones have."""

import hashlib
from collections.abc import Callable, Iterator

from broker.remote.errors import RemoteError
from broker.remote.plan import Entry

BLOCK = 4


class FakeSource:
    """Files by path; each may be cut after some bytes, and the whole may be down. What was read is counted."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.down = ""
        self.cut: dict[str, int] = {}
        self.is_etag = False
        self.has_ranges = True
        self.has_digests = True
        self.is_over = False  # whoever follows it ends
        self.before_read: Callable[[], None] = lambda: None
        self.reads: list[tuple[str, int, int]] = []  # path, from where, how many bytes

    def listing(self) -> list[Entry]:
        if self.is_over:
            raise SystemExit
        if self.down:
            raise RemoteError(self.down)
        return [self.entry(path) for path in self.files]

    def entry(self, path: str) -> Entry:
        if path.endswith("/"):
            return Entry(path, 0, "")
        digest = hashlib.md5(self.files[path], usedforsecurity=False).hexdigest()
        tag = f"etag:{path}:{digest}" if self.is_etag else f"md5:{digest}"
        return Entry(path, len(self.files[path]), tag)

    def read(self, entry: Entry, start: int) -> tuple[int, Iterator[bytes]]:
        if not self.has_ranges:
            start = 0
        return start, self._blocks(entry.path, start)

    def _blocks(self, path: str, start: int) -> Iterator[bytes]:
        self.before_read()
        content, limit = self.files[path], self.cut.get(path)
        for at in range(start, len(content), BLOCK):
            if limit is not None and at - start >= limit:
                raise RemoteError("the connection broke")
            block = content[at : at + BLOCK]
            self.reads.append((path, at, len(block)))
            yield block

    def is_as_listed(self, entry: Entry) -> bool:
        return self.entry(entry.path) == entry

    def is_digest(self, entry: Entry) -> bool:
        return self.has_digests

    def bytes_read(self) -> int:
        return sum(count for _, _, count in self.reads)
