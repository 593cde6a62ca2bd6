"""Where the files of a remote repository come from: fsspec's file systems, or an archive over HTTP."""

import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from broker.remote import credentials
from broker.remote.errors import RemoteError, reason
from broker.remote.plan import Entry, tag
from configs.remote import Remote

CHUNK = 8 << 20
"""Bytes asked for at a time: what a broken connection costs."""
TIMEOUT_SECONDS = 30.0
RETRIES = 2
"""Of a client that has any, within one read: what has come is kept anyway, and the rest is asked for again later."""
_CLASSES = {
    "s3": ("s3fs", "S3FileSystem"),
    "gs": ("gcsfs.core", "GCSFileSystem"),  # the package's own also asks a second service about every bucket
    "as": ("adlfs", "AzureBlobFileSystem"),
    "hf": ("huggingface_hub", "HfFileSystem"),
}


class Source(Protocol):
    """A repository elsewhere. Every method raises RemoteError."""

    def listing(self) -> list[Entry]:
        """Everything in it."""

    def read(self, entry: Entry, start: int) -> tuple[int, Iterator[bytes]]:
        """The content from `start` on; where it begins is returned, for not every server can begin in the middle."""

    def is_as_listed(self, entry: Entry) -> bool:
        """Whether the file is still what the listing said, after it was read."""

    def is_digest(self, entry: Entry) -> bool:
        """Whether the entry's MD5 is that of its content: encrypted objects have another one."""


def connect(remote: Remote, environ: Mapping[str, str] = os.environ) -> Source:
    """A fresh connection, with the credentials as they are now. Raises RemoteError."""
    if remote.scheme == "http":
        return ArchiveSource(remote.url)
    path = environ.get(credentials.PATH_VARIABLE)
    try:
        options = credentials.options(remote, environ, Path(path).read_text() if path else None)
        if "managed_identity" in options:
            identity = import_module("azure.identity.aio")
            options["credential"] = identity.ManagedIdentityCredential(
                client_id=options.pop("managed_identity") or None
            )
        module, name = _CLASSES[remote.scheme]
        options |= {"skip_instance_cache": True, "use_listings_cache": False}
        files = getattr(import_module(module), name)(**options)
        files.retries = RETRIES
        return TreeSource(remote, files)
    except credentials.NoCredentials as error:
        raise RemoteError(str(error)) from None
    except Exception as error:  # whatever a cloud's library raises
        raise RemoteError(reason(error)) from error


class TreeSource:
    """A tree of files that fsspec can list and read."""

    def __init__(self, remote: Remote, files: Any) -> None:
        """`files` is one of fsspec's file systems."""
        self._remote = remote
        self._files = files
        self._root = remote.path.rstrip("/")

    def listing(self) -> list[Entry]:
        """Everything below the repository's path."""
        try:
            found = self._files.find(self._root, withdirs=True, detail=True)
        except Exception as error:  # whatever a cloud's library raises
            raise RemoteError(reason(error)) from error
        entries = [self._entry(name, info) for name, info in found.items() if name.rstrip("/") != self._root]
        if not entries:
            raise RemoteError("there is nothing there")
        return entries

    def _entry(self, name: str, info: Mapping[str, Any]) -> Entry:
        root = self._root
        if self._remote.scheme == "hf" and not name.startswith(root):  # a revision may be written otherwise
            root = "/".join(name.split("/", 2)[:2] + self._root.split("/")[2:])
        path = name.removeprefix(root).removeprefix("/")
        if info.get("type") == "directory" or name.endswith("/"):
            return Entry(path.rstrip("/") + "/", 0, "")
        return Entry(path, int(info.get("size") or 0), self._tag(path, info))

    def _tag(self, path: str, info: Mapping[str, Any]) -> str:
        found = tag(self._remote.scheme, f"{self._remote.url}/{path}", info)
        if not found:
            raise RemoteError(f"the listing does not say what '{path}' is: no digest and no ETag")
        return found

    def read(self, entry: Entry, start: int) -> tuple[int, Iterator[bytes]]:
        """One request for each chunk."""
        return start, self._chunks(entry, start)

    def _chunks(self, entry: Entry, start: int) -> Iterator[bytes]:
        path = f"{self._root}/{entry.path}"
        for first in range(start, entry.size, CHUNK):
            try:
                data: bytes = self._files.cat_file(path, start=first, end=min(entry.size, first + CHUNK))
            except Exception as error:  # whatever a cloud's library raises
                raise RemoteError(reason(error)) from error
            yield data

    def is_as_listed(self, entry: Entry) -> bool:
        """Ask again."""
        try:
            info = self._files.info(f"{self._root}/{entry.path}", refresh=True)
        except Exception as error:  # whatever a cloud's library raises
            raise RemoteError(reason(error)) from error
        return self._tag(entry.path, info) == entry.tag

    def is_digest(self, entry: Entry) -> bool:
        """Only S3 gives other objects such tags: those that it encrypts with keys of its KMS or of customers."""
        if self._remote.scheme != "s3":
            return True
        bucket, _, key = f"{self._root}/{entry.path}".partition("/")
        try:
            head = self._files.call_s3("head_object", Bucket=bucket, Key=key)
        except Exception as error:  # whatever a cloud's library raises
            raise RemoteError(reason(error)) from error
        return "kms" not in head.get("ServerSideEncryption", "") and not head.get("SSECustomerAlgorithm")


class ArchiveSource:
    """One file over HTTP, an archive of a whole repository."""

    def __init__(self, url: str) -> None:
        """Its name ends as archives' do."""
        self._url = url

    def listing(self) -> list[Entry]:
        """The archive alone. One byte is asked for: signed URLs allow no HEAD, and not every server knows ranges."""
        with self._open({"Range": "bytes=0-0"}) as answer:
            size = answer.headers.get("Content-Length", "")
            if answer.status == 206:
                size = answer.headers.get("Content-Range", "").rpartition("/")[2]
            etag = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
        if not size.isdecimal() or not etag:
            raise RemoteError("the server says neither ETag nor Last-Modified, or no Content-Length")
        return [Entry(_name(self._url), int(size), f"etag:{self._url}:{etag}")]

    def read(self, entry: Entry, start: int) -> tuple[int, Iterator[bytes]]:
        """One request; a server that does not know ranges begins at the beginning."""
        _, _, etag = entry.tag.removeprefix("etag:").removeprefix(self._url).partition(":")
        answer = self._open({"Range": f"bytes={start}-", "If-Range": etag} if start else {})
        return (start if answer.status == 206 else 0), self._blocks(answer)

    def _blocks(self, answer: Any) -> Iterator[bytes]:
        with answer:
            while True:
                try:
                    block: bytes = answer.read(1 << 20)
                except Exception as error:  # http.client and ssl have their own
                    raise RemoteError(reason(error)) from error
                if not block:
                    return
                yield block

    def _open(self, headers: Mapping[str, str]) -> Any:
        request = urllib.request.Request(self._url, headers=dict(headers))
        try:
            return urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
        except urllib.error.HTTPError as error:
            raise RemoteError(f"the server answers {error.code} {error.reason}") from None
        except urllib.error.URLError as error:
            raise RemoteError(reason(error.reason if isinstance(error.reason, BaseException) else error)) from None
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise RemoteError(reason(error)) from None

    def is_as_listed(self, entry: Entry) -> bool:
        """Ask again."""
        return self.listing() == [entry]

    def is_digest(self, entry: Entry) -> bool:
        """It has none."""
        return False


def _name(url: str) -> str:
    return url.partition("?")[0].rpartition("/")[2]
