"""What a repository's listing asks for: objects to fetch, models to put together anew, models to remove. Pure.

A model's snapshot is named by everything in it, so equal names mean equal files. Names in a listing are not trusted:
what would lie outside its model's directory, or twice at one place, keeps that model from being served.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

_LONGEST_NAME = 255  # bytes
UNFETCHED = "unfetched"
"""The snapshot of a model that nobody has asked for yet: an empty directory."""


class Entry(NamedTuple):
    """A file, or a directory when the path ends in `/`. `tag` says what the content is: `KIND:VALUE`.

    The kinds `md5`, `sha256` and `git` are digests; any other value is only different for different content.
    """

    path: str
    size: int
    tag: str

    @property
    def key(self) -> str:
        """The object's name in the cache."""
        return hashlib.sha256(f"{self.tag}\0{self.size}".encode(errors="surrogateescape")).hexdigest()


class Hasher(Protocol):
    """What hashlib's objects are."""

    def update(self, data: bytes, /) -> None:
        """More of the content."""

    def hexdigest(self) -> str:
        """The digest."""


def hasher(entry: Entry) -> tuple[Hasher | None, str]:
    """What computes the content's digest, and what it should be; None where the tag is none."""
    kind, _, value = entry.tag.partition(":")
    made: Hasher
    match kind:
        case "md5":
            return hashlib.md5(usedforsecurity=False), value
        case "sha256":
            return hashlib.sha256(), value
        case "git":
            made = hashlib.sha1(usedforsecurity=False)
            made.update(f"blob {entry.size}\0".encode())
            return made, value
        case _:
            return None, ""


def tag(scheme: str, place: str, info: Mapping[str, Any]) -> str:
    """The tag of a file from what a client's listing says about it; `place` is its URL, "" if it says nothing."""
    if scheme == "hf":
        lfs = info.get("lfs")
        return f"sha256:{lfs['sha256']}" if lfs else f"git:{info['blob_id']}" if info.get("blob_id") else ""
    md5 = info.get("md5Hash") if scheme == "gs" else (info.get("content_settings") or {}).get("content_md5")
    if md5:
        return f"md5:{_hexadecimal(md5)}"
    etag = str(info.get("ETag") or info.get("etag") or "").strip('"')
    if scheme == "s3" and re.fullmatch("[0-9a-f]{32}", etag):
        return f"md5:{etag}"
    return f"etag:{place}:{etag}" if etag else ""


def _hexadecimal(md5: str | bytes | bytearray) -> str:
    try:
        return (base64.b64decode(md5) if isinstance(md5, str) else bytes(md5)).hex()
    except binascii.Error:
        return "none"


@dataclass
class Tree:
    """A model's files by their path in its directory, and its directories, which may be empty."""

    files: dict[str, Entry] = field(default_factory=dict)
    directories: set[str] = field(default_factory=set)

    @property
    def snapshot(self) -> str:
        """Names the model's content."""
        digest = hashlib.sha256()
        for name in sorted(self.directories):
            digest.update(f"{name}/\0".encode(errors="surrogateescape"))
        for path, entry in sorted(self.files.items()):
            digest.update(f"{path}\0{entry.key}\0".encode(errors="surrogateescape"))
        return digest.hexdigest()[:32]


class Listing(NamedTuple):
    """The models of a repository, and why others cannot be taken from it."""

    models: dict[str, Tree]
    refused: dict[str, str]


def read(entries: Iterable[Entry]) -> Listing:
    """Sort a listing into models. Files beside them are none, and hidden directories neither."""
    models: dict[str, Tree] = {}
    refused: dict[str, str] = {}
    for entry in entries:
        name, *parts = entry.path.removesuffix("/").split("/")
        if not is_safe(name) or name.startswith(".") or not (parts or entry.path.endswith("/")):
            continue
        tree = models.setdefault(name, Tree())
        path = "/".join(parts)
        if not all(map(is_safe, parts)):
            refused.setdefault(name, f"'{entry.path}' is no path below the model's directory")
        elif entry.path.endswith("/"):
            tree.directories.update(_parents(parts))
        elif path in tree.files:
            refused.setdefault(name, f"'{entry.path}' is there twice")
        else:
            tree.files[path] = entry
            tree.directories.update(_parents(parts[:-1]))
    for name, tree in models.items():
        for path in sorted(tree.directories & tree.files.keys()):
            refused.setdefault(name, f"'{name}/{path}' is both a file and a directory")
    return Listing({name: tree for name, tree in models.items() if name not in refused}, refused)


def is_safe(name: str) -> bool:
    """A name that is one step down, wherever it is put."""
    if name in {"", ".", ".."} or "/" in name or "\0" in name:
        return False
    return len(name.encode(errors="surrogateescape")) <= _LONGEST_NAME


def _parents(parts: list[str]) -> Iterable[str]:
    return ("/".join(parts[:count]) for count in range(1, len(parts) + 1))


class Plan(NamedTuple):
    """What has to be done; a model is published once all its objects are there."""

    fetch: tuple[Entry, ...]  # each object once
    publish: dict[str, Tree]
    postpone: tuple[str, ...]  # models that only have to be known by name
    remove: tuple[str, ...]


def plan(
    listing: Listing, published: Mapping[str, str], wanted: Container[str] | None, has: Callable[[Entry], bool]
) -> Plan:
    """What makes the `published` snapshots (by model) what the listing says. `wanted` None: every model.

    Models that are not wanted stay as they are, or are only known by name. `has` says which objects are there.
    """
    news = {name: tree for name, tree in listing.models.items() if published.get(name) != tree.snapshot}
    publish = {name: tree for name, tree in news.items() if wanted is None or name in wanted}
    fetch: dict[str, Entry] = {}
    for tree in publish.values():
        for entry in tree.files.values():
            if entry.key not in fetch and not has(entry):
                fetch[entry.key] = entry
    return Plan(
        tuple(fetch.values()),
        publish,
        tuple(name for name in news if name not in publish and name not in published),
        tuple(name for name in published if name not in listing.models and name not in listing.refused),
    )
