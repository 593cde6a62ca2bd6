"""A small HTTP server for tests: files with ETags and ranges, and what it was asked."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit


class FileServer:
    """Serves `files` by path; `answers` are functions by path for anything else, which get the whole path."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.headers: dict[str, dict[str, str]] = {}
        self.answers: dict[str, Callable[[str], bytes]] = {}
        self.asked: list[str] = []  # path and range
        self.has_ranges = True
        self.cut_after: int | None = None
        self.url = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """One request."""
        path = urlsplit(handler.path).path
        wanted = handler.headers.get("Range", "")
        self.asked.append(f"{handler.path} {wanted}".rstrip())
        if path in self.answers:
            content, headers = self.answers[path](handler.path), {"Content-Type": "application/json"}
            self._send(handler, 200, content, headers)
        elif path in self.files:
            self._send_file(handler, path, wanted)
        else:
            self._send(handler, 404, b"", {})

    def _send_file(self, handler: BaseHTTPRequestHandler, path: str, wanted: str) -> None:
        content = self.files[path]
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        headers = {"ETag": etag, "Accept-Ranges": "bytes", **self.headers.get(path, {})}
        if wanted and self.has_ranges and handler.headers.get("If-Range", etag) == etag:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            begin, end = int(first), min(int(last or len(content)), len(content) - 1) + 1
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{len(content)}"
            self._send(handler, 206, content[begin:end], headers)
        else:
            self._send(handler, 200, content, headers)

    def _send(self, handler: BaseHTTPRequestHandler, status: int, content: bytes, headers: dict[str, str]) -> None:
        handler.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            handler.send_header(name, value)
        handler.end_headers()
        if handler.command == "HEAD":
            return
        if self.cut_after is not None and len(content) > self.cut_after:
            content = content[: self.cut_after]
            handler.close_connection = True
        handler.wfile.write(content)


@contextmanager
def file_server() -> Iterator[FileServer]:
    """One that runs; it has no files yet."""
    found = FileServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            found.answer(self)

        do_HEAD = do_POST = do_GET  # as http.server wants it

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    found.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
