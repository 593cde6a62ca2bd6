"""Model repositories that lie elsewhere: what their URLs mean, what reading them needs, and where they are mirrored."""

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
_PACKAGES = {"s3": ("s3fs", "s3"), "gs": ("gcsfs", "gcs"), "as": ("adlfs", "azure"), "hf": ("huggingface_hub", "hf")}
_FORMS = {
    "s3": "s3://BUCKET/PATH or s3://[https://]HOST:PORT/BUCKET/PATH",
    "gs": "gs://BUCKET/PATH",
    "as": "as://ACCOUNT/CONTAINER/PATH",
    "hf": "hf://OWNER/NAME[@REVISION][/PATH]",
}
_S3_ENDPOINT = re.compile(r"(?P<scheme>https?://)?(?P<host>[^/]+:[0-9]{1,5}|(?<=//)[^/]+)/(?P<path>.+)")
_BLOB_HOST = ".blob.core.windows.net"


class Remote(NamedTuple):
    """One repository. `place` is the endpoint of S3 (`""`: Amazon's) or the account of Azure, `path` what is read."""

    url: str
    scheme: str  # s3, gs, as, hf, http
    place: str
    path: str

    def __str__(self) -> str:
        return self.url.partition("?")[0]  # a signature may follow

    @property
    def mirror(self) -> str:
        """The name of its directory in the cache: one that people recognise, and no other repository has."""
        shown = re.sub(r"[^A-Za-z0-9.]+", "-", str(self))[:60].strip("-.")
        return f"{shown}-{hashlib.sha256(self.url.encode()).hexdigest()[:12]}"


def parse(text: str) -> Remote:
    """What a URL means. Raises ValueError."""
    if not text.isprintable() or len(text) > 2000:
        raise ValueError("this is no URL")
    scheme, _, rest = text.partition("://")
    rest = rest if scheme in {"http", "https"} else re.sub("/+", "/", rest.replace("://", ":\0")).replace("\0", "//")
    rest = rest.strip("/")
    match scheme:
        case "http" | "https":
            return _archive(f"{scheme}://{rest}")
        case "s3":
            return _s3(rest)
        case "gs" | "hf" | "as":
            parts = rest.split("/")
            if len(parts) < (1 if scheme == "gs" else 2) or not _are_plain(parts):
                raise ValueError(f"write {_FORMS[scheme]}")
            if scheme == "as":
                return Remote(f"as://{rest}", "as", parts[0].removesuffix(_BLOB_HOST), "/".join(parts[1:]))
            return Remote(f"{scheme}://{rest}", scheme, "", rest)
        case _:
            raise ValueError(f"'{scheme}' is none of s3, gs, as, hf, https and http")


def _s3(rest: str) -> Remote:
    match = _S3_ENDPOINT.fullmatch(rest)
    place, path = "", rest
    if match is not None:
        place, path = f"{match['scheme'] or 'http://'}{match['host']}", match["path"]
    if not _are_plain(path.split("/")) or ":" in path.partition("/")[0]:
        raise ValueError(f"write {_FORMS['s3']}")
    return Remote(f"s3://{rest}", "s3", place, path)


def _archive(url: str) -> Remote:
    parts = urlsplit(url)
    if not parts.hostname or not parts.path.endswith(ARCHIVES):
        raise ValueError(
            f"over http(s) a repository is an archive: the path has to end in one of {', '.join(ARCHIVES)}"
        )
    if parts.username or parts.password:
        raise ValueError("a URL with a password in it would be shown in logs")
    return Remote(url, "http", "", url)


def _are_plain(parts: list[str]) -> bool:
    return all(part not in {"", ".", ".."} and "?" not in part and "#" not in part for part in parts)


def lacking(remote: Remote, find: Callable[[str], object | None] = find_spec) -> str:
    """Which package is missing and how to get it, "" when none is; `find` returns None for those that are."""
    package, extra = _PACKAGES.get(remote.scheme, ("", ""))
    if not package or find(package) is not None:
        return ""
    return f"{remote.scheme}:// needs the package '{package}', which is not installed: pip install 'tidepool[{extra}]'"


def default_cache(environ: Mapping[str, str]) -> Path:
    """`tidepool/repositories` in the user's cache directory."""
    base = environ.get("XDG_CACHE_HOME", "")
    home = environ.get("HOME") or os.path.expanduser("~")
    return (Path(base) if os.path.isabs(base) else Path(home) / ".cache") / "tidepool" / "repositories"


def is_usable(cache: Path) -> bool:
    """Whether the cache is a directory that we may write to, or can be made."""
    existing = next(path for path in (cache, *cache.parents) if os.path.lexists(path))
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)


def models_directory(cache: Path, remote: Remote) -> Path:
    """Where the repository's models lie once they are here."""
    return cache / "mirrors" / remote.mirror / "models"
