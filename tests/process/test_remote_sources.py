"""Real clients of remote repositories against a local server, as far as they allow another endpoint."""

import base64
import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from broker import check
from broker.remote.errors import RemoteError
from broker.remote.mirror import Mirror
from broker.remote.plan import Entry
from broker.remote.sources import TreeSource, connect
from configs.remote import parse
from tests.support.file_server import FileServer, file_server

FILES = {"m/config.pbtxt": b'backend: "identity"', "m/1/weights": bytes(range(256)) * 4096}


@pytest.fixture
def server() -> Iterator[FileServer]:
    with file_server() as found:
        yield found


def mirror(url: str, directory: Path, environ: Mapping[str, str] | None = None) -> Mirror:
    return Mirror(parse(url), directory, lambda *_: None, lambda remote: connect(remote, environ or {}))


def content(found: Mirror) -> dict[str, bytes]:
    paths = [path for model in found.models.iterdir() for path in model.rglob("*") if path.is_file()]
    return {str(path.relative_to(found.models)): path.read_bytes() for path in paths}


# ----------------------------------------------------------------------------------------------- archives


def archive(name: str, files: Mapping[str, bytes]) -> bytes:
    data = io.BytesIO()
    if name.endswith(".zip"):
        with zipfile.ZipFile(data, "w") as zipped:
            for path, text in files.items():
                zipped.writestr(path, text)
    else:
        with tarfile.open(fileobj=data, mode="w:gz" if name.endswith("gz") else "w") as tar:
            for path, text in files.items():
                info = tarfile.TarInfo(path)
                info.size = len(text)
                tar.addfile(info, io.BytesIO(text))
    return data.getvalue()


@pytest.mark.parametrize("name", ["models.zip", "models.tar.gz", "models.tgz", "models.tar"])
def test_archives_are_repositories(server: FileServer, tmp_path: Path, name: str) -> None:
    server.files[f"/{name}"] = archive(name, FILES)
    found = mirror(f"{server.url}/{name}", tmp_path)
    assert found.sync(None).changed == {"m"}
    assert content(found) == FILES
    asked = len(server.asked)
    assert found.sync(None).changed == frozenset()
    assert server.asked[asked:] == [f"/{name} bytes=0-0"], "one byte tells that nothing has changed"
    server.files[f"/{name}"] = archive(name, {"n/config.pbtxt": b"n"})
    assert found.sync(None).changed == {"m", "n"}
    assert content(found) == {"n/config.pbtxt": b"n"}


def test_a_broken_download_of_an_archive_goes_on_where_it_broke(server: FileServer, tmp_path: Path) -> None:
    server.files["/m.tar"] = archive("m.tar", FILES)
    server.cut_after = 100_000
    found = mirror(f"{server.url}/m.tar", tmp_path)
    with pytest.raises(RemoteError, match=r"has 100000 bytes, \d+ were listed|IncompleteRead"):
        found.sync(None)
    server.cut_after = None
    found.sync(None)
    assert content(found) == FILES
    assert "/m.tar bytes=100000-" in server.asked


def test_a_server_without_ranges_serves_archives_too(server: FileServer, tmp_path: Path) -> None:
    server.files["/m.tar"] = archive("m.tar", FILES)
    server.has_ranges = False
    server.cut_after = 100_000
    found = mirror(f"{server.url}/m.tar?signature=1", tmp_path)
    with pytest.raises(RemoteError):
        found.sync(None)
    server.cut_after = None
    found.sync(None)
    assert content(found) == FILES


def test_an_archive_that_is_none_leaves_what_was_there(server: FileServer, tmp_path: Path) -> None:
    server.files["/m.zip"] = archive("m.zip", FILES)
    found = mirror(f"{server.url}/m.zip", tmp_path)
    found.sync(None)
    server.files["/m.zip"] = b"nothing"
    with pytest.raises(RemoteError, match=r"'m.zip' cannot be unpacked: File is not a zip file"):
        found.sync(None)
    assert content(found) == FILES


def test_what_a_server_says_instead_of_an_archive(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(RemoteError, match="the server answers 404 Not Found"):
        mirror(f"{server.url}/m.zip", tmp_path).sync(None)


def test_check_looks_into_remote_repositories(
    server: FileServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"m/config.pbtxt": b'backend: "identity" max_bach_size: 1', "m/1/": b""}
    server.files["/m.zip"] = archive("m.zip", {**FILES, "n/1/x": b"", **{f"b{p[1:]}": t for p, t in files.items()}})
    command = ["check", f"{server.url}/m.zip", f"--repository-cache={tmp_path}"]
    assert check.main(command, dict) == 1
    printed = capsys.readouterr()
    assert "error: unknown field 'max_bach_size' in ModelConfig" in printed.out
    assert f"{server.url}/m.zip: 1 of 1 file" in printed.err
    del server.files["/m.zip"]
    assert check.main(command, dict) == check.UNUSABLE
    assert capsys.readouterr().out == f"error: {server.url}/m.zip: the server answers 404 Not Found\n"


# ----------------------------------------------------------------------------------------------- Hugging Face


class Hub:
    """What of the hub's interface its client needs to read one repository."""

    def __init__(self, server: FileServer, files: Mapping[str, bytes]) -> None:
        self._server = server
        self._files = files
        root = "/api/models/me/models"
        server.answers |= {root: self._info, f"{root}/revision/main": self._info}
        for directory in {"", *(path.rpartition("/")[0] for path in files), "m"}:
            server.answers[f"{root}/tree/main/{directory}".rstrip("/")] = self._tree
            server.answers[f"{root}/tree/{'c' * 40}/{directory}".rstrip("/")] = self._tree
        server.answers[f"{root}/paths-info/main"] = server.answers[f"{root}/paths-info/{'c' * 40}"] = self._tree
        for path, text in files.items():
            for revision in ("main", "c" * 40):
                server.files[f"/me/models/resolve/{revision}/{path}"] = text
                server.headers[f"/me/models/resolve/{revision}/{path}"] = {"X-Repo-Commit": "c" * 40}

    def _info(self, _: str) -> bytes:
        return json.dumps({"id": "me/models", "sha": "c" * 40, "siblings": [], "private": False}).encode()

    def _tree(self, _: str) -> bytes:
        entries: list[dict[str, Any]] = [
            {"type": "directory", "path": path, "oid": "d" * 40, "size": 0} for path in ("m", "m/1")
        ]
        for path, text in self._files.items():
            entry = {"type": "file", "path": path, "size": len(text), "oid": blob_id(text)}
            if len(text) > 1000:
                digest = hashlib.sha256(text).hexdigest()
                entry |= {"oid": "f" * 40, "lfs": {"oid": digest, "size": len(text), "pointerSize": 134}}
            entries.append(entry)
        return json.dumps(entries).encode()


def blob_id(content: bytes) -> str:
    """git's name of a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def test_a_repository_on_the_hub(server: FileServer, tmp_path: Path) -> None:
    huggingface_hub = pytest.importorskip("huggingface_hub")
    Hub(server, FILES)
    files = huggingface_hub.HfFileSystem(endpoint=server.url, token=False, skip_instance_cache=True)
    remote = parse("hf://me/models")
    found = Mirror(remote, tmp_path, lambda *_: None, lambda _: TreeSource(remote, files))
    assert found.sync(None).failures == {}
    assert content(found) == FILES
    assert found.sync(None).changed == frozenset()


# ----------------------------------------------------------------------------------------------- Google, Azure


def test_a_bucket_of_google(server: FileServer, tmp_path: Path) -> None:
    gcsfs = pytest.importorskip("gcsfs.core")
    items = [
        {
            "name": f"models/{path}",
            "bucket": "box",
            "size": str(len(text)),
            "md5Hash": base64.b64encode(hashlib.md5(text, usedforsecurity=False).digest()).decode(),
            "etag": "x",
        }
        for path, text in FILES.items()
    ]
    server.answers["/storage/v1/b/box/o"] = lambda _: json.dumps({"items": items}).encode()
    for path, text in FILES.items():
        server.files[f"/download/storage/v1/b/box/o/models%2F{path.replace('/', '%2F')}"] = text
    files = gcsfs.GCSFileSystem(endpoint_url=server.url, token="anon", skip_instance_cache=True)
    remote = parse("gs://box/models")
    found = Mirror(remote, tmp_path, lambda *_: None, lambda _: TreeSource(remote, files))
    assert found.sync(None).failures == {}
    assert content(found) == FILES


class AzureFiles:
    """fsspec's class for Azure, as far as it is used, with what it says about files."""

    def find(self, path: str, **_: Any) -> dict[str, dict[str, Any]]:
        assert path == "box/models"
        found = {
            f"box/models/{name}": {
                "name": f"box/models/{name}",
                "type": "file",
                "size": len(text),
                "etag": "0x8D",
                "content_settings": {"content_md5": bytearray(hashlib.md5(text, usedforsecurity=False).digest())},
            }
            for name, text in FILES.items()
        }
        return {**found, "box/models/m": {"name": "box/models/m", "type": "directory", "size": None}}

    def cat_file(self, path: str, start: int, end: int) -> bytes:
        return FILES[path.removeprefix("box/models/")][start:end]


def test_a_container_of_azure(tmp_path: Path) -> None:
    remote = parse("as://account/box/models")
    found = Mirror(remote, tmp_path, lambda *_: None, lambda _: TreeSource(remote, AzureFiles()))
    assert found.sync(None).failures == {}
    assert content(found) == FILES


def test_a_listing_that_says_too_little_is_none() -> None:
    class Files(AzureFiles):
        def find(self, path: str, **_: Any) -> dict[str, dict[str, Any]]:
            return {"box/models/m/x": {"name": "box/models/m/x", "type": "file", "size": 1}}

    with pytest.raises(RemoteError, match="the listing does not say what 'm/x' is"):
        TreeSource(parse("as://account/box/models"), Files()).listing()


def test_an_empty_listing_is_none_either() -> None:
    class Files:
        def find(self, *_: Any, **__: Any) -> dict[str, Any]:
            return {}

    with pytest.raises(RemoteError, match="there is nothing there"):
        TreeSource(parse("gs://box/models"), Files()).listing()


def test_credentials_are_read_where_triton_reads_them(tmp_path: Path) -> None:
    with pytest.raises(RemoteError, match="No such file"):
        connect(parse("s3://b/m"), {"TRITON_CLOUD_CREDENTIAL_PATH": str(tmp_path / "none")})
    (tmp_path / "file").write_text("{}")
    with pytest.raises(RemoteError, match="Cannot match credential for path  s3://b/m"):
        connect(parse("s3://b/m"), {"TRITON_CLOUD_CREDENTIAL_PATH": str(tmp_path / "file")})


def test_directories_of_a_tree_are_listed_too() -> None:
    assert Entry("m/", 0, "") in TreeSource(parse("as://account/box/models"), AzureFiles()).listing()
