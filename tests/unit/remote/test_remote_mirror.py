"""A mirror on disk: complete or not at all, resumed, verified, shared; and archives that try to leave it."""

import io
import os
import tarfile
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from broker.remote.errors import RemoteError
from broker.remote.mirror import Mirror, size
from broker.remote.plan import Entry
from broker.remote.store import UNUSED_SECONDS, Store
from broker.remote.unpack import unpack
from configs.remote import parse
from tests.support.remote_source import FakeSource

WEIGHTS = bytes(range(100))
FILES = {"m/config.pbtxt": b"a", "m/1/weights": WEIGHTS, "n/config.pbtxt": b"b", "e/1/": b""}


@pytest.fixture
def source() -> FakeSource:
    return FakeSource(dict(FILES))


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def mirror(tmp_path: Path, source: FakeSource, said: list[str]) -> Mirror:
    return make(tmp_path, source, said)


def make(root: Path, source: FakeSource, said: list[str]) -> Mirror:
    return Mirror(parse("s3://b/m"), root, lambda _, text: said.append(text), lambda _: source)


def files(mirror: Mirror) -> dict[str, bytes]:
    found = {}
    for root, _, names in os.walk(mirror.models, followlinks=True):
        for name in names:
            path = Path(root) / name
            found[str(path.relative_to(mirror.models))] = path.read_bytes()
    return found


def test_it_is_what_the_repository_is(mirror: Mirror, source: FakeSource, said: list[str], tmp_path: Path) -> None:
    arrived: list[str] = []
    synced = mirror.sync(None, arrived.append)
    assert synced.failures == {}
    assert synced.changed == {"m", "n", "e"} == set(arrived)
    assert files(mirror) == {path: content for path, content in FILES.items() if not path.endswith("/")}
    assert (mirror.models / "e" / "1").is_dir()
    assert said == [f"s3://b/m: 3 of 3 files, 102 bytes of 102 bytes in {said[0].split(' in ')[1]}"]
    assert str(mirror) == f"3 models mirrored; the cache {tmp_path} has 102 bytes"
    source.files = {"m/config.pbtxt": b"c", "m/1/weights": WEIGHTS}
    source.reads.clear()
    assert mirror.sync(None).changed == {"m", "n", "e"}
    assert files(mirror) == source.files
    assert source.bytes_read() == 1, "only what is new"
    assert mirror.sync(None).changed == frozenset()


def test_a_broken_download_leaves_the_old_and_goes_on_where_it_broke(mirror: Mirror, source: FakeSource) -> None:
    mirror.sync(None)
    source.files["m/1/weights"] = WEIGHTS[::-1]
    source.files["n/config.pbtxt"] = b"d"
    source.cut = {"m/1/weights": 40}
    source.reads.clear()
    synced = mirror.sync(None)
    assert synced.failures == {"m": "s3://b/m: the connection broke"}
    assert synced.changed == {"n"}
    assert files(mirror)["m/1/weights"] == WEIGHTS
    mirror.sync(None)
    source.cut = {}
    assert mirror.sync(None).changed == {"m"}
    assert files(mirror)["m/1/weights"] == WEIGHTS[::-1]
    assert source.bytes_read() == 1 + 100


def test_a_server_that_cannot_begin_in_the_middle_begins_anew(mirror: Mirror, source: FakeSource) -> None:
    source.has_ranges = False
    source.cut = {"m/1/weights": 40}
    mirror.sync(None)
    source.cut = {}
    assert mirror.sync(None).failures == {}
    assert files(mirror)["m/1/weights"] == WEIGHTS


@pytest.mark.parametrize("is_etag", [False, True])
def test_content_that_is_not_what_was_listed_is_thrown_away(
    mirror: Mirror, source: FakeSource, is_etag: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.is_etag = is_etag
    listed = source.listing()
    monkeypatch.setattr(source, "listing", lambda: listed)
    source.files["m/1/weights"] = WEIGHTS[::-1]
    failure = "s3://b/m: 'm/1/weights' is not what was listed: it was changed, or damaged on its way"
    assert mirror.sync(None).failures == {"m": failure}
    source.files["m/1/weights"] = WEIGHTS
    assert mirror.sync(None).failures == {}
    assert files(mirror)["m/1/weights"] == WEIGHTS


def test_tags_that_only_look_like_digests_are_none(mirror: Mirror, source: FakeSource) -> None:
    listed = source.listing()
    source.listing = lambda: listed  # type: ignore[method-assign]
    source.files["m/1/weights"] = WEIGHTS[::-1]
    source.has_digests = False
    assert mirror.sync(None).failures == {}
    assert files(mirror)["m/1/weights"] == WEIGHTS[::-1]


def test_a_second_download_shows_that_a_tag_is_no_digest(mirror: Mirror, source: FakeSource) -> None:
    listed = source.listing()
    source.listing = lambda: listed  # type: ignore[method-assign]
    source.is_as_listed = lambda entry: entry in listed  # type: ignore[method-assign]
    source.files["m/1/weights"] = WEIGHTS[::-1]
    assert list(mirror.sync(None).failures) == ["m"]
    assert mirror.sync(None).failures == {}
    assert files(mirror)["m/1/weights"] == WEIGHTS[::-1]


@pytest.mark.parametrize("content", [WEIGHTS[:-1], WEIGHTS + b"x"])
def test_content_of_another_length_is_no_object(mirror: Mirror, source: FakeSource, content: bytes) -> None:
    listed = source.listing()
    source.listing = lambda: listed  # type: ignore[method-assign]
    source.files["m/1/weights"] = content
    assert list(mirror.sync(None).failures) == ["m"]


def test_models_that_are_not_wanted_are_known_by_name(mirror: Mirror, source: FakeSource) -> None:
    assert mirror.sync({"n"}).changed == {"m", "n", "e"}
    assert files(mirror) == {"n/config.pbtxt": b"b"}
    assert mirror.holds("n")
    assert not mirror.holds("m")
    assert mirror.sync({"m"}).changed == {"m"}
    assert "m/1/weights" in files(mirror)
    assert not mirror.holds("nothing")


def test_it_outlives_the_repository(mirror: Mirror, source: FakeSource, tmp_path: Path) -> None:
    assert mirror.last_listed is None
    mirror.sync(None)
    source.down = "no route"
    with pytest.raises(RemoteError, match="no route"):
        mirror.sync(None)
    again = make(tmp_path, source, [])
    assert again.last_listed is not None
    assert again.holds("m")


def test_a_connection_is_kept_until_it_fails(tmp_path: Path, source: FakeSource) -> None:
    made: list[str] = []

    def connect(remote: object) -> FakeSource:
        made.append(str(remote))
        return source

    mirror = Mirror(parse("s3://b/m"), tmp_path, lambda *_: None, connect)
    mirror.sync(None)
    mirror.sync(None)
    assert len(made) == 1
    source.down = "expired"
    with pytest.raises(RemoteError):
        mirror.sync(None)
    source.down = ""
    mirror.sync(None)
    assert len(made) == 2


def test_two_servers_share_a_cache(tmp_path: Path, source: FakeSource) -> None:
    source.files = {f"m{i}/1/weights": bytes([i]) * 400 for i in range(8)}
    mirrors = [make(tmp_path, source, []) for _ in range(4)]
    threads = [threading.Thread(target=mirror.sync, args=(None,)) for mirror in mirrors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert files(mirrors[0]) == source.files
    assert source.bytes_read() == 8 * 400, "each object was downloaded once"


def test_who_comes_while_another_one_downloads_waits_for_it(tmp_path: Path, source: FakeSource) -> None:
    source.files = {"m/1/weights": WEIGHTS}
    other = threading.Thread(target=make(tmp_path, source, []).sync, args=(None,))

    def meanwhile() -> None:
        source.before_read = lambda: None
        other.start()
        other.join(0.5)
        assert other.is_alive()

    source.before_read = meanwhile
    assert make(tmp_path, source, []).sync(None).failures == {}
    other.join()
    assert source.bytes_read() == len(WEIGHTS)


def test_a_mirror_that_cannot_be_written_says_so(mirror: Mirror, source: FakeSource) -> None:
    source.files = {"m/" + "x" * 200 + "/" + "y" * 200: b"", "m" * 240 + "/1/x": b"", "n/config.pbtxt": b""}
    failures = mirror.sync(None).failures
    assert list(failures) == ["m" * 240]
    assert failures["m" * 240].startswith("s3://b/m: File name too long")


def test_what_nothing_links_to_goes_after_a_while(tmp_path: Path, mirror: Mirror, source: FakeSource) -> None:
    mirror.sync(None)
    store = Store(tmp_path)
    entry = source.entry("m/1/weights")
    del source.files["m/1/weights"]
    mirror.sync(None)
    now = store.path(entry).stat().st_ctime
    store.sweep(now + UNUSED_SECONDS - 60)
    assert store.has(entry)
    store.sweep(now + UNUSED_SECONDS + 60)
    assert not store.has(entry)
    assert store.has(source.entry("m/config.pbtxt")), "it is in use"
    assert files(mirror) == {"m/config.pbtxt": b"a", "n/config.pbtxt": b"b"}


def test_the_cache_is_its_users_alone(mirror: Mirror) -> None:
    mirror.sync(None)
    assert mirror.models.parent.parent.stat().st_mode & 0o077 == 0
    assert (mirror.models / "m/1/weights").stat().st_mode & 0o222 == 0


def test_sizes_for_people() -> None:
    assert [size(n) for n in (0, 1023, 1536, 5 << 20, 3 << 30, 5 << 40)] == [
        "0 bytes", "1023 bytes", "1.5 KB", "5.0 MB", "3.0 GB", "5120.0 GB",
    ]  # fmt: skip


# ----------------------------------------------------------------------------------------------- archives


def zipped(path: Path, members: dict[str, bytes], mode: int = 0) -> None:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            file.writestr(info, content)


def tarred(path: Path, members: dict[str, bytes], kind: bytes = tarfile.REGTYPE) -> None:
    with tarfile.open(path, "w:gz") as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.type = len(content) if kind == tarfile.REGTYPE else 0, kind
            info.linkname = "/etc" if kind != tarfile.REGTYPE else ""
            file.addfile(info, io.BytesIO(content))


WRITERS: list[tuple[str, Callable[[Path, dict[str, bytes]], None]]] = [("a.zip", zipped), ("a.tar.gz", tarred)]


@pytest.mark.parametrize(("name", "write"), WRITERS)
def test_archives_are_unpacked(tmp_path: Path, name: str, write: Callable[[Path, dict[str, bytes]], None]) -> None:
    write(tmp_path / name, {"./m/config.pbtxt": b"a", "m/1/weights": WEIGHTS})
    unpack(tmp_path / name, name, tmp_path / "out")
    assert (tmp_path / "out/m/1/weights").read_bytes() == WEIGHTS
    assert (tmp_path / "out/m/config.pbtxt").read_bytes() == b"a"


@pytest.mark.parametrize(("name", "write"), WRITERS)
@pytest.mark.parametrize("path", ["../evil", "m/../../evil", "/tmp/evil", "a/../../evil"])
def test_names_that_lead_out_are_refused(
    tmp_path: Path, name: str, write: Callable[[Path, dict[str, bytes]], None], path: str
) -> None:
    write(tmp_path / name, {"m/config.pbtxt": b"", path: b"evil"})
    with pytest.raises(RemoteError, match="is no path below the repository"):
        unpack(tmp_path / name, name, tmp_path / "x" / "out")
    assert not list(tmp_path.rglob("evil"))


def test_links_and_devices_are_refused(tmp_path: Path) -> None:
    zipped(tmp_path / "a.zip", {"m/link": b"/etc/passwd"}, 0o120777)
    with pytest.raises(RemoteError, match="neither a file nor a directory"):
        unpack(tmp_path / "a.zip", "a.zip", tmp_path / "out")
    for number, kind in enumerate([tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]):
        tarred(tmp_path / "a.tgz", {"m/link": b""}, kind)
        with pytest.raises(RemoteError, match="neither a file nor a directory"):
            unpack(tmp_path / "a.tgz", "a.tgz", tmp_path / f"out{number}")


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_what_is_no_archive(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"no archive")
    with pytest.raises(RemoteError, match=f"'{name}' cannot be unpacked"):
        unpack(tmp_path / name, name, tmp_path / "out")


def test_two_things_at_one_place(tmp_path: Path) -> None:
    tarred(tmp_path / "a.tar", {"m": b"file", "m/config.pbtxt": b""})
    with pytest.raises(RemoteError, match="two things at one place"):
        unpack(tmp_path / "a.tar", "a.tar", tmp_path / "out")


def test_keys_differ_with_the_content() -> None:
    assert len({Entry("a", 1, "md5:x").key, Entry("b", 1, "md5:x").key}) == 1
    assert len({Entry("a", 1, "md5:x").key, Entry("a", 2, "md5:x").key, Entry("a", 1, "md5:y").key}) == 3
